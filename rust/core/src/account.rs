//! Money and the limits on losing it. Invariant: the balance changes only by what was booked, and
//! a limit is measured on the equity at the last bar's end.

use serde::{Deserialize, Serialize};

use crate::config::{Config, OnHalt};
use crate::record::{Equity, Event, Risk, Sink};

/// Losses in a row at or beyond this are no count.
const LOSSES_LIMIT: i64 = 1 << 40;

/// The account and its limits. The fields stand in the order of the alphabet, as they are written
/// when the account crosses to another engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    balance: f64,
    halted: bool,
    last_mark: f64,
    losses: i64,
    paused: bool,
    peak: f64,
    session_open: f64,
}

impl Account {
    /// Returns an account with a balance.
    #[must_use]
    pub fn new(balance: f64) -> Self {
        Self {
            balance,
            halted: false,
            last_mark: balance,
            losses: 0,
            paused: false,
            peak: balance,
            session_open: balance,
        }
    }

    /// Names the first field that no account can have, with its value and what it may be.
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String, &'static str)> {
        let sums = [
            ("balance", self.balance),
            ("last_mark", self.last_mark),
            ("peak", self.peak),
            ("session_open", self.session_open),
        ];
        let unusable = sums.into_iter().find(|(_, sum)| !sum.is_finite());
        if let Some((name, sum)) = unusable {
            return Some((name, sum.to_string(), "a finite number"));
        }
        (!(0..LOSSES_LIMIT).contains(&self.losses)).then(|| {
            let found = self.losses.to_string();
            ("losses", found, "0 or more, and a number of trades")
        })
    }

    /// Returns the equity at the last mark.
    #[must_use]
    pub fn last_mark(&self) -> f64 {
        self.last_mark
    }

    /// Returns why no order may be made.
    #[must_use]
    pub fn block(&self) -> Option<&'static str> {
        if self.halted {
            Some("halted")
        } else if self.paused {
            Some("paused")
        } else {
            None
        }
    }

    /// Books money.
    pub fn book(&mut self, amount: f64) {
        self.balance += amount;
    }

    /// Counts a trade that ended.
    pub fn count(&mut self, net: f64) {
        self.losses = if net > 0.0 { 0 } else { self.losses + 1 };
    }

    /// Marks the account with the open result.
    pub fn mark(&mut self, time: i64, open_result: f64, open_contracts: i64, sink: &mut dyn Sink) {
        let equity = self.balance + open_result;
        self.last_mark = equity;
        self.peak = self.peak.max(equity);
        sink.take_equity(Equity {
            time,
            balance: self.balance,
            equity,
            open_contracts,
            drawdown: self.peak - equity,
        });
    }

    /// Applies the limits after a mark. Returns the reason when working orders must die.
    pub fn limit(
        &mut self,
        config: &Config,
        time: i64,
        sink: &mut dyn Sink,
    ) -> Option<&'static str> {
        let equity = self.last_mark;
        let risk = &config.risk;
        let past = |limit: Option<f64>, from: f64| {
            limit.is_some_and(|percent| (from - equity) * 100.0 >= percent * from)
        };
        let mut stopped = None;
        if !self.halted && past(risk.max_drawdown_pct, self.peak) {
            self.halted = true;
            stopped = Some("halted");
            tell(sink, time, "halted", "max_drawdown");
        }
        let reason = if past(risk.daily_loss_pct, self.session_open) {
            Some("daily_loss")
        } else if risk
            .max_consecutive_losses
            .is_some_and(|most| self.losses >= most)
        {
            Some("consecutive_losses")
        } else {
            None
        };
        if let Some(reason) = reason.filter(|_| !self.paused) {
            self.paused = true;
            stopped = stopped.or(Some("paused"));
            tell(sink, time, "paused", reason);
        }
        stopped
    }

    /// Begins a session: a pause is served, and a halt ends when it may.
    pub fn open_session(
        &mut self,
        config: &Config,
        time: i64,
        open_result: f64,
        sink: &mut dyn Sink,
    ) {
        self.session_open = self.balance + open_result;
        if self.paused {
            self.paused = false;
            self.losses = 0;
            tell(sink, time, "resumed", "next_session");
        }
        if self.halted && config.risk.on_halt == OnHalt::NextSession {
            self.halted = false;
            self.peak = self.session_open;
            tell(sink, time, "reset", "next_session");
        }
    }

    /// Ends halt and pause at the operator's word.
    pub fn reset(&mut self, time: i64, open_result: f64, sink: &mut dyn Sink) {
        self.halted = false;
        self.paused = false;
        self.losses = 0;
        self.peak = self.balance + open_result;
        tell(sink, time, "reset", "operator");
    }
}

fn tell(sink: &mut dyn Sink, time: i64, kind: &'static str, reason: &'static str) {
    sink.take(Event::Risk(Risk { time, kind, reason }));
}
