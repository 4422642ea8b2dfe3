//! What earlier trades of a context say about the size. Invariant: only trades whose exit was known
//! count, in the order they ended.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bar::MINUTE_NS;
use crate::beta::{Posterior, posterior};
use crate::config::{ContextKind, LearningMode, LearningSettings};
use crate::signal::Armed;

const DAY_NS: i64 = 24 * 60 * MINUTE_NS;

/// A trade that ended, by the facts from which every kind of context can be told. The fields stand
/// in the order of the alphabet, as they are written when the records cross to another engine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastTrade {
    /// When it ended.
    pub exit_time: i64,
    /// Where the modal price lay between low and high.
    pub modal_position: f64,
    /// Result after costs, in USD.
    pub net: f64,
    /// Net result over the entry's notional, 0 without notional.
    pub net_return: f64,
    /// Hour of New York of the decision.
    pub new_york_hour: i64,
    /// Rank of the cluster.
    pub rank: i64,
}

/// What a record keeps of a trade.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    exit_time: i64,
    win: bool,
    return_pct: f64,
}

/// The record of one context.
#[derive(Clone, Debug, Default)]
struct Record {
    outcomes: Vec<Outcome>,
    wins: u64,
    return_pct: f64,
}

/// What the record says at an instant.
#[derive(Clone, Copy, Debug)]
pub struct Assessment {
    /// Context; none when all trades are alike.
    pub context: Option<i64>,
    /// Size multiplier.
    pub multiplier: f64,
    /// Posterior of the win probability.
    pub posterior: Option<Posterior>,
}

/// The records of all contexts.
#[derive(Clone, Debug, Default)]
pub struct Learning {
    /// Every trade, in the order they ended.
    past: Vec<PastTrade>,
    records: BTreeMap<i64, Record>,
    posteriors: BTreeMap<(u64, u64), Posterior>,
}

/// Returns the context of a signal.
#[must_use]
pub fn context(settings: &LearningSettings, armed: &Armed) -> Option<i64> {
    context_of(
        settings,
        armed.modal_position,
        armed.rank,
        armed.new_york_hour,
    )
}

fn context_of(
    settings: &LearningSettings,
    modal_position: f64,
    rank: i64,
    new_york_hour: i64,
) -> Option<i64> {
    match settings.context {
        ContextKind::None => None,
        ContextKind::ModalBin => {
            let bin = (modal_position * settings.bins as f64 + 1e-9).floor() as i64;
            Some(bin.clamp(0, settings.bins - 1))
        }
        ContextKind::VolumeRank => Some(rank),
        ContextKind::Hour => Some(new_york_hour),
    }
}

impl Learning {
    /// Returns the records of trades that ended before, in the contexts of these settings.
    #[must_use]
    pub fn of(settings: &LearningSettings, past: &[PastTrade]) -> Self {
        let mut learning = Self::default();
        for trade in past {
            learning.remember(settings, *trade);
        }
        learning
    }

    /// Returns every trade, in the order they ended.
    #[must_use]
    pub fn past(&self) -> &[PastTrade] {
        &self.past
    }

    /// Remembers a trade that ended.
    pub fn remember(&mut self, settings: &LearningSettings, trade: PastTrade) {
        let context = context_of(
            settings,
            trade.modal_position,
            trade.rank,
            trade.new_york_hour,
        );
        let record = self.records.entry(context.unwrap_or(0)).or_default();
        let outcome = Outcome {
            exit_time: trade.exit_time,
            win: trade.net > 0.0,
            return_pct: trade.net_return * 100.0,
        };
        record.wins += u64::from(outcome.win);
        record.return_pct += outcome.return_pct;
        record.outcomes.push(outcome);
        self.past.push(trade);
    }

    /// Returns what the record of a context says now.
    pub fn assess(
        &mut self,
        settings: &LearningSettings,
        context: Option<i64>,
        now: i64,
    ) -> Assessment {
        let (trades, wins, return_pct) = self.tally(settings, context, now);
        let mut assessment = Assessment {
            context,
            multiplier: 1.0,
            posterior: None,
        };
        if settings.mode == LearningMode::Off {
            return assessment;
        }
        if settings.mode == LearningMode::Beta {
            assessment.posterior = Some(self.posterior(wins, trades - wins));
        }
        if trades < settings.min_trades as u64 {
            return assessment;
        }
        assessment.multiplier = match settings.mode {
            LearningMode::Off => 1.0,
            LearningMode::Beta => {
                let mean = (1.0 + wins as f64) / (2.0 + trades as f64);
                if mean > 0.5 {
                    (1.0 + settings.scale * (mean - 0.5)).min(settings.max)
                } else {
                    1.0
                }
            }
            LearningMode::Score if trades == 0 => 1.0,
            LearningMode::Score => {
                let win_rate = wins as f64 / trades as f64;
                let mean_return = return_pct / trades as f64;
                (1.0 + settings.scale * win_rate * mean_return).clamp(1.0, settings.max)
            }
        };
        assessment
    }

    fn tally(
        &self,
        settings: &LearningSettings,
        context: Option<i64>,
        now: i64,
    ) -> (u64, u64, f64) {
        let Some(record) = self.records.get(&context.unwrap_or(0)) else {
            return (0, 0, 0.0);
        };
        let Some(days) = settings.lookback_days else {
            return (record.outcomes.len() as u64, record.wins, record.return_pct);
        };
        let from = now - days * DAY_NS;
        let recent = record
            .outcomes
            .iter()
            .filter(|outcome| outcome.exit_time >= from);
        recent.fold((0, 0, 0.0), |(trades, wins, sum), outcome| {
            (
                trades + 1,
                wins + u64::from(outcome.win),
                sum + outcome.return_pct,
            )
        })
    }

    fn posterior(&mut self, wins: u64, losses: u64) -> Posterior {
        *self
            .posteriors
            .entry((wins, losses))
            .or_insert_with(|| posterior(wins, losses))
    }
}
