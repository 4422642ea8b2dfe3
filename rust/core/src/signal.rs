//! Direction and strength. Invariant: the strength lies within 0 and the sum of the weights.

use crate::config::SignalSettings;

/// Which way a trade goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It gains when the price rises.
    Long,
    /// It gains when the price falls.
    Short,
}

impl Direction {
    /// Returns the word used in frames.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Long => "long",
            Self::Short => "short",
        }
    }

    /// Returns 1 for long and -1 for short.
    #[must_use]
    pub fn sign(self) -> i64 {
        match self {
            Self::Long => 1,
            Self::Short => -1,
        }
    }
}

/// Returns the direction that a modal position gives, if any.
#[must_use]
pub fn direction(settings: &SignalSettings, position: f64) -> Option<Direction> {
    if position <= settings.long_threshold {
        Some(Direction::Long)
    } else if settings.shorts && position >= settings.short_threshold {
        Some(Direction::Short)
    } else {
        None
    }
}

/// Returns the strength of a signal.
#[must_use]
pub fn strength(
    settings: &SignalSettings,
    direction: Direction,
    position: f64,
    volume_ratio: f64,
    momentum: Option<f64>,
) -> f64 {
    let position_strength = match direction {
        Direction::Long => 1.0 - position / settings.long_threshold,
        Direction::Short => {
            (position - settings.short_threshold) / (1.0 - settings.short_threshold)
        }
    }
    .clamp(0.0, 1.0);
    let volume_strength = (volume_ratio / settings.volume_cap).min(1.0);
    let momentum_strength = momentum.map_or(0.0, |momentum| {
        let along = direction.sign() as f64 * momentum;
        (along * settings.momentum_scale).clamp(0.0, 1.0)
    });
    settings.w_position * position_strength
        + settings.w_volume * volume_strength
        + settings.w_momentum * momentum_strength
}

/// Returns the smallest strength that goes on.
#[must_use]
pub fn min_strength(settings: &SignalSettings, direction: Direction) -> f64 {
    match direction {
        Direction::Long => settings.min_strength,
        Direction::Short => settings.min_strength_short.unwrap_or(settings.min_strength),
    }
}

/// A signal that was armed: everything later steps need to know of its cluster, whichever detector
/// found it.
#[derive(Clone, Debug)]
pub struct Armed {
    /// Symbol.
    pub symbol: u32,
    /// Index of the session.
    pub session: usize,
    /// When the cluster was decided.
    pub decision_time: i64,
    /// Direction.
    pub direction: Direction,
    /// Price whose retest confirms, in 1e-9.
    pub modal_price: i64,
    /// Whether several prices traded equally much.
    pub modal_tied: bool,
    /// Where the modal price lies between low and high.
    pub modal_position: f64,
    /// Volume ratio.
    pub volume_ratio: f64,
    /// Rank.
    pub rank: i64,
    /// Momentum.
    pub momentum: Option<f64>,
    /// Strength.
    pub strength: f64,
    /// End of the hours that bind the entry; far away when none do.
    pub hours_end: i64,
    /// Hour of New York of the decision.
    pub new_york_hour: i64,
}
