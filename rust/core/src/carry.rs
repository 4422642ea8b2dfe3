//! What crosses from one engine to the next when settings change: money, open positions and the
//! facts of past trades, as text. Invariant: text that no engine can have written is refused whole.
//!
//! What comes from bars alone is not here: an engine learns that from the bars.

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::bar::PRICE_LIMIT_NANOS;
use crate::error::DataError;
use crate::learning::PastTrade;
use crate::position::OpenLeg;
use crate::signal::Direction;

/// Changes whenever the text does.
pub const VERSION: i64 = 1;

/// Earliest and latest time: the difference of any two exists.
const TIMES: std::ops::RangeInclusive<i64> = -(1 << 61)..=1 << 62;
/// Counts at or beyond this are none.
const COUNT_LIMIT: i64 = 1 << 40;
/// Contracts beyond this are none, so that no sum of them can overflow.
const CONTRACTS_LIMIT: i64 = 1 << 31;
/// A stop or target lies no further from every price than one price from another.
const LEVEL_LIMIT: u64 = 2 * PRICE_LIMIT_NANOS as u64;

/// The state of an account between two sessions. The fields of everything that is written stand in
/// the order of the alphabet, so that equal states are equal texts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Money and limits.
    pub account: Account,
    /// Close of the last bar, in 1e-9.
    pub last_close: i64,
    /// When the last signal was confirmed.
    #[serde(deserialize_with = "Option::deserialize")]
    pub last_confirmed: Option<i64>,
    /// End of the last bar.
    pub last_end: i64,
    /// Every trade that ended, in that order.
    pub past: Vec<PastTrade>,
    /// Open positions, by decision time.
    pub positions: Vec<OpenPosition>,
    /// Root of the instrument.
    pub root: String,
    /// Of the text.
    pub version: i64,
}

/// An open position between two bars.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenPosition {
    /// Largest adverse excursion, in 1e-9.
    pub adverse: i64,
    /// Whether one bar reached stop and target.
    pub ambiguous: bool,
    /// Bars since the entry.
    pub bars: i64,
    /// Best price of the finished bars since the entry, in 1e-9.
    #[serde(deserialize_with = "Option::deserialize")]
    pub best: Option<i64>,
    /// When the retest was known.
    pub confirmed_time: i64,
    /// Context that its size was found in.
    #[serde(deserialize_with = "Option::deserialize")]
    pub context: Option<i64>,
    /// Costs so far, in USD.
    pub costs: f64,
    /// When the cluster was decided.
    pub decision_time: i64,
    /// Which way.
    #[serde(with = "direction")]
    pub direction: Direction,
    /// Price paid, in 1e-9.
    pub entry_price: i64,
    /// When it filled.
    pub entry_time: i64,
    /// Largest favourable excursion, in 1e-9.
    pub favourable: i64,
    /// Result of what left, in USD.
    pub gross: f64,
    /// Stop at the entry, in 1e-9.
    pub initial_stop: i64,
    /// Sum of quantity times price of what left.
    #[serde(with = "whole")]
    pub left: i128,
    /// Parts that leave at their own targets.
    pub legs: Vec<OpenLeg>,
    /// Where the modal price lay between low and high.
    pub modal_position: f64,
    /// Modal price of the cluster, in 1e-9.
    pub modal_price: i64,
    /// Whether several prices traded equally much.
    pub modal_tied: bool,
    /// Momentum.
    #[serde(deserialize_with = "Option::deserialize")]
    pub momentum: Option<f64>,
    /// Size multiplier.
    pub multiplier: f64,
    /// Hour of New York of the decision.
    pub new_york_hour: i64,
    /// Contracts still open.
    pub open: i64,
    /// Whether the entry is one nobody can have.
    pub optimistic: bool,
    /// Contracts entered.
    pub quantity: i64,
    /// Rank of the cluster.
    pub rank: i64,
    /// Volatility over the holding time.
    pub sigma_hold: f64,
    /// Who measured it.
    #[serde(deserialize_with = "source::deserialize")]
    pub sigma_source: Word,
    /// Stop, in 1e-9.
    pub stop: i64,
    /// Strength of the signal.
    pub strength: f64,
    /// Name of the contract.
    pub symbol: String,
    /// Target, in 1e-9.
    pub target: i64,
    /// Identity.
    #[serde(with = "identity")]
    pub trade_id: u128,
    /// Volume ratio of the cluster.
    pub volume_ratio: f64,
}

/// A word of the engine.
type Word = &'static str;

mod direction {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::signal::Direction;

    pub(super) fn serialize<S: Serializer>(way: &Direction, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(way.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Direction, D::Error> {
        let text = String::deserialize(from)?;
        [Direction::Long, Direction::Short]
            .into_iter()
            .find(|way| way.word() == text)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is no direction")))
    }
}

/// Whole numbers of 128 bits, which JSON has no room for.
mod whole {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &i128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i128, D::Error> {
        let text = String::deserialize(from)?;
        let value = text.parse::<i128>().ok();
        value
            .filter(|value| value.to_string() == text)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is no whole number")))
    }
}

mod identity {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &u128, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{id:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        u128::from_str_radix(&text, 16)
            .ok()
            .filter(|id| format!("{id:032x}") == text)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is not 32 digits of base 16")))
    }
}

mod source {
    use serde::{Deserialize, Deserializer, de::Error};

    use crate::config::FIELDS;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<&'static str, D::Error> {
        let text = String::deserialize(from)?;
        let estimators = FIELDS
            .iter()
            .filter(|field| field.section == "volatility" && field.name == "estimator")
            .flat_map(|field| field.choices.iter().copied());
        estimators
            .chain(["atr", "price"])
            .find(|word| *word == text)
            .ok_or_else(|| D::Error::custom(format!("`{text}` is no source of volatility")))
    }
}

impl Carried {
    /// Reads the text of a state.
    ///
    /// # Errors
    /// When it is not the text of a state of this version, or holds what no state can hold.
    pub fn read(text: &str) -> Result<Self, DataError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: i64,
        }
        let unreadable = |error: serde_json::Error| {
            let found = error.to_string();
            refuse(
                0,
                "state",
                "not the state of an account",
                found,
                "the text of account_state()",
            )
        };
        let Versioned { version } = serde_json::from_str(text).map_err(unreadable)?;
        if version != VERSION {
            let expected = format!("version {VERSION}");
            let found = format!("version {version}");
            return Err(refuse(
                0,
                "version",
                "the state of an account in another version",
                found,
                &expected,
            ));
        }
        let carried: Self = serde_json::from_str(text).map_err(unreadable)?;
        carried.check()?;
        Ok(carried)
    }

    /// Writes the state as text.
    ///
    /// # Errors
    /// When a sum is no number any more.
    pub fn write(&self) -> Result<String, DataError> {
        self.check()?;
        serde_json::to_string(self).map_err(|error| {
            let found = error.to_string();
            refuse(
                0,
                "state",
                "the account cannot be written",
                found,
                "numbers",
            )
        })
    }

    /// Returns the contract of the open positions.
    #[must_use]
    pub fn symbol(&self) -> Option<&str> {
        self.positions
            .first()
            .map(|position| position.symbol.as_str())
    }

    fn check(&self) -> Result<(), DataError> {
        if let Some((name, found, expected)) = self.account.fault() {
            return Err(refuse(0, name, "not an account", found, expected));
        }
        let last_confirmed = self.last_confirmed.unwrap_or(0);
        Fields { row: 0 }
            .price("last_close", self.last_close)?
            .time("last_confirmed", last_confirmed)?
            .time("last_end", self.last_end)?;
        for (row, trade) in self.past.iter().enumerate() {
            check_past(row, trade)?;
        }
        for (row, position) in self.positions.iter().enumerate() {
            position.check(row, self.last_end)?;
        }
        let ascending = |pair: &[OpenPosition]| pair[0].decision_time <= pair[1].decision_time;
        let one_symbol = |pair: &[OpenPosition]| pair[0].symbol == pair[1].symbol;
        if let Some(row) = self.positions.windows(2).position(|pair| !ascending(pair)) {
            let found = self.positions[row + 1].decision_time.to_string();
            let expected = "at or after the position before";
            return Err(refuse(
                row + 1,
                "decision_time",
                "not in order",
                found,
                expected,
            ));
        }
        if let Some(row) = self.positions.windows(2).position(|pair| !one_symbol(pair)) {
            let found = self.positions[row + 1].symbol.clone();
            let expected = &self.positions[row].symbol;
            return Err(refuse(
                row + 1,
                "symbol",
                "positions of two contracts",
                found,
                expected,
            ));
        }
        Ok(())
    }
}

fn check_past(row: usize, trade: &PastTrade) -> Result<(), DataError> {
    Fields { row }
        .time("exit_time", trade.exit_time)?
        .number("modal_position", trade.modal_position)?
        .number("net", trade.net)?
        .number("net_return", trade.net_return)?
        .whole("new_york_hour", trade.new_york_hour, 0, 23)?
        .whole("rank", trade.rank, 1, COUNT_LIMIT)?;
    Ok(())
}

impl OpenPosition {
    fn check(&self, row: usize, last_end: i64) -> Result<(), DataError> {
        let furthest = LEVEL_LIMIT as i64;
        Fields { row }
            .whole("adverse", self.adverse, 0, furthest)?
            .whole("bars", self.bars, 1, COUNT_LIMIT)?
            .price("best", self.best.unwrap_or(0))?
            .number("costs", self.costs)?
            .price("entry_price", self.entry_price)?
            .whole("favourable", self.favourable, 0, furthest)?
            .number("gross", self.gross)?
            .level("initial_stop", self.initial_stop)?
            .number("modal_position", self.modal_position)?
            .price("modal_price", self.modal_price)?
            .number("momentum", self.momentum.unwrap_or(0.0))?
            .number("multiplier", self.multiplier)?
            .whole("new_york_hour", self.new_york_hour, 0, 23)?
            .whole("quantity", self.quantity, 1, CONTRACTS_LIMIT)?
            .whole("open", self.open, 1, self.quantity)?
            .whole("rank", self.rank, 1, COUNT_LIMIT)?
            .number("sigma_hold", self.sigma_hold)?
            .level("stop", self.stop)?
            .number("strength", self.strength)?
            .level("target", self.target)?
            .number("volume_ratio", self.volume_ratio)?
            .time("decision_time", self.decision_time)?
            .time("confirmed_time", self.confirmed_time)?
            .time("entry_time", self.entry_time)?
            .whole(
                "confirmed_time",
                self.confirmed_time,
                self.decision_time,
                self.entry_time,
            )?
            .whole(
                "entry_time",
                self.entry_time,
                self.confirmed_time,
                last_end.max(self.confirmed_time),
            )?;
        self.check_parts(row)
    }

    /// Contracts that left and contracts that leave at their own targets are not more than entered.
    fn check_parts(&self, row: usize) -> Result<(), DataError> {
        let mut free = self.open;
        for leg in &self.legs {
            Fields { row }
                .level("legs", leg.price)?
                .whole("legs", leg.quantity, 1, free)?;
            free -= leg.quantity;
        }
        let gone = self.quantity - self.open;
        let most = gone as u128 * u128::from(LEVEL_LIMIT);
        if self.left.unsigned_abs() > most {
            let expected = format!("{gone} contracts times a price");
            return Err(refuse(
                row,
                "left",
                "not what can have left",
                self.left.to_string(),
                &expected,
            ));
        }
        Ok(())
    }
}

/// Checks of the fields of one row, which stop at the first that is refused.
#[derive(Clone, Copy)]
struct Fields {
    row: usize,
}

impl Fields {
    fn is(
        self,
        column: &'static str,
        allowed: bool,
        found: impl ToString,
        expected: impl FnOnce() -> String,
    ) -> Result<Self, DataError> {
        if allowed {
            return Ok(self);
        }
        let found = found.to_string();
        Err(refuse(
            self.row,
            column,
            "not a value of an account",
            found,
            &expected(),
        ))
    }

    fn whole(
        self,
        column: &'static str,
        value: i64,
        least: i64,
        most: i64,
    ) -> Result<Self, DataError> {
        self.is(column, (least..=most).contains(&value), value, || {
            format!("{least} to {most}")
        })
    }

    fn time(self, column: &'static str, value: i64) -> Result<Self, DataError> {
        self.whole(column, value, *TIMES.start(), *TIMES.end())
    }

    fn price(self, column: &'static str, value: i64) -> Result<Self, DataError> {
        self.whole(column, value, 1 - PRICE_LIMIT_NANOS, PRICE_LIMIT_NANOS - 1)
    }

    fn level(self, column: &'static str, value: i64) -> Result<Self, DataError> {
        self.is(column, value.unsigned_abs() <= LEVEL_LIMIT, value, || {
            format!("within {LEVEL_LIMIT} of 0")
        })
    }

    fn number(self, column: &'static str, value: f64) -> Result<Self, DataError> {
        self.is(column, value.is_finite(), value, || {
            "a finite number".to_owned()
        })
    }
}

/// Returns a refusal.
#[must_use]
pub fn refuse(
    row: usize,
    column: &'static str,
    problem: &str,
    found: String,
    expected: &str,
) -> DataError {
    DataError {
        row,
        column,
        problem: problem.to_owned(),
        found,
        expected: expected.to_owned(),
    }
}
