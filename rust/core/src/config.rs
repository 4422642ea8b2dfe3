//! The settings of the engine. Invariant: a [`Config`] that exists is complete and within its ranges.
//!
//! Every setting is declared once, in [`FIELDS`]: its type, unit, range and sentence. The Python
//! model, the JSON schema and the reference page are made from that table. No setting has a
//! default here; defaults are the `default` preset, which lives in one versioned file.

use crate::bar::PRICE_LIMIT_NANOS;
use crate::error::ConfigError;

/// A value as it comes from a file or from Python.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value: an optional setting that is off.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A table, in the order given.
    Table(Vec<(String, Value)>),
}

impl Value {
    fn describe(&self) -> String {
        match self {
            Self::Null => "no value".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(value) => format!("{value:?}"),
            Self::List(values) => format!("a list of {}", values.len()),
            Self::Table(values) => format!("a table of {}", values.len()),
        }
    }
}

/// The type of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A finite number.
    Float,
    /// One of a list of words.
    Choice,
    /// A distance such as `"2 ticks"` or `"0.75 points"`.
    Distance,
    /// A list of texts.
    Texts,
    /// The legs of a scale-out.
    Legs,
}

/// One setting: what it means and what it may be.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Section of the configuration, such as `cluster`.
    pub section: &'static str,
    /// Name within the section.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Whether the setting may be left empty.
    pub optional: bool,
    /// Words allowed, for [`Kind::Choice`].
    pub choices: &'static [&'static str],
    /// Smallest value allowed.
    pub min: f64,
    /// Largest value allowed.
    pub max: f64,
    /// Unit of the value.
    pub unit: &'static str,
    /// What the setting does, in one sentence.
    pub sentence: &'static str,
}

impl Field {
    /// Returns the dotted name, such as `cluster.threshold`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    fn refuse(&self, value: &Value, expected: impl Into<String>) -> ConfigError {
        ConfigError {
            field: self.path(),
            problem: "not an allowed value".to_owned(),
            found: value.describe(),
            expected: expected.into(),
        }
    }

    fn check_range(&self, value: &Value, number: f64) -> Result<(), ConfigError> {
        if number >= self.min && number <= self.max {
            return Ok(());
        }
        Err(self.refuse(value, format!("{} to {}", self.min, self.max)))
    }
}

/// A type that a setting can have.
trait Setting: Sized {
    const KIND: Kind;
    const OPTIONAL: bool = false;
    const CHOICES: &'static [&'static str] = &[];
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError>;
}

impl Setting for bool {
    const KIND: Kind = Kind::Bool;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        match value {
            Value::Bool(flag) => Ok(*flag),
            other => Err(field.refuse(other, "true or false")),
        }
    }
}

impl Setting for i64 {
    const KIND: Kind = Kind::Int;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        let Value::Int(number) = value else {
            return Err(field.refuse(value, "a whole number"));
        };
        field.check_range(value, *number as f64)?;
        Ok(*number)
    }
}

impl Setting for f64 {
    const KIND: Kind = Kind::Float;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        let number = match value {
            Value::Float(number) => *number,
            Value::Int(number) => *number as f64,
            other => return Err(field.refuse(other, "a number")),
        };
        field.check_range(value, number)?;
        Ok(number)
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;
    const CHOICES: &'static [&'static str] = T::CHOICES;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        match value {
            Value::Null => Ok(None),
            other => T::read(other, field).map(Some),
        }
    }
}

/// A distance in price, as written: in points or in ticks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distance {
    /// Points of price.
    Points(f64),
    /// Ticks of the instrument.
    Ticks(f64),
}

impl Distance {
    /// Returns the distance in ticks of `tick_nanos`, not rounded.
    #[must_use]
    pub fn in_ticks(self, tick_nanos: i64) -> f64 {
        match self {
            Self::Ticks(ticks) => ticks,
            Self::Points(points) => points * 1e9 / tick_nanos as f64,
        }
    }

    /// Returns the distance in 1e-9 points, rounded to the nearest, halves up.
    #[must_use]
    pub fn in_nanos(self, tick_nanos: i64) -> i64 {
        let nanos = match self {
            Self::Points(points) => points * 1e9,
            Self::Ticks(ticks) => ticks * tick_nanos as f64,
        };
        // No distance reaches further than any price can be.
        ((nanos + 0.5).floor() as i64).min(PRICE_LIMIT_NANOS)
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.trim().split_once(' ')?;
        let number: f64 = number.parse().ok()?;
        if !(0.0..=1e6).contains(&number) {
            return None;
        }
        match unit.trim() {
            "point" | "points" => Some(Self::Points(number)),
            "tick" | "ticks" => Some(Self::Ticks(number)),
            _ => None,
        }
    }
}

const DISTANCE_FORM: &str = "a distance from 0 to 1000000, such as \"2 ticks\" or \"0.75 points\"";

impl Setting for Distance {
    const KIND: Kind = Kind::Distance;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        let Value::Text(text) = value else {
            return Err(field.refuse(value, DISTANCE_FORM));
        };
        Self::parse(text).ok_or_else(|| field.refuse(value, DISTANCE_FORM))
    }
}

impl Setting for Vec<String> {
    const KIND: Kind = Kind::Texts;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        let Value::List(items) = value else {
            return Err(field.refuse(value, "a list of texts"));
        };
        items
            .iter()
            .map(|item| match item {
                Value::Text(text) => Ok(text.clone()),
                other => Err(field.refuse(other, "a text")),
            })
            .collect()
    }
}

/// Where a leg of a scale-out takes its profit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LegTarget {
    /// At a distance from the fill.
    Distance(Distance),
    /// At a multiple of the stop distance.
    Reward(f64),
}

/// One leg of a scale-out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leg {
    /// Part of the whole quantity.
    pub fraction: f64,
    /// Where the leg leaves.
    pub target: LegTarget,
}

const LEG_FORM: &str = "tables such as {fraction = 0.5, reward = 1.0} or {fraction = 0.5, distance = \"8 ticks\"}, fractions above 0 and at most 1 together";

impl Leg {
    fn read(value: &Value) -> Option<Self> {
        let Value::Table(entries) = value else {
            return None;
        };
        let mut fraction = None;
        let mut target = None;
        for (name, value) in entries {
            match (name.as_str(), value) {
                ("fraction", Value::Float(number)) => fraction = Some(*number),
                ("fraction", Value::Int(number)) => fraction = Some(*number as f64),
                ("distance", Value::Text(text)) if target.is_none() => {
                    target = Some(LegTarget::Distance(Distance::parse(text)?));
                }
                ("reward", Value::Float(number)) if target.is_none() => {
                    target = Some(LegTarget::Reward(*number));
                }
                ("reward", Value::Int(number)) if target.is_none() => {
                    target = Some(LegTarget::Reward(*number as f64));
                }
                _ => return None,
            }
        }
        let leg = Self {
            fraction: fraction.filter(|part| *part > 0.0 && *part <= 1.0)?,
            target: target?,
        };
        match leg.target {
            LegTarget::Reward(reward) if !(reward > 0.0 && reward <= 1000.0) => None,
            _ => Some(leg),
        }
    }
}

impl Setting for Vec<Leg> {
    const KIND: Kind = Kind::Legs;
    fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
        let Value::List(items) = value else {
            return Err(field.refuse(value, LEG_FORM));
        };
        let legs: Option<Self> = items.iter().map(Leg::read).collect();
        legs.filter(|legs| legs.iter().map(|leg| leg.fraction).sum::<f64>() <= 1.0 + 1e-9)
            .ok_or_else(|| field.refuse(value, LEG_FORM))
    }
}

macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl Setting for $name {
            const KIND: Kind = Kind::Choice;
            const CHOICES: &'static [&'static str] = &[$($text),+];
            fn read(value: &Value, field: &Field) -> Result<Self, ConfigError> {
                match value {
                    $(Value::Text(text) if text == $text => Ok(Self::$variant),)+
                    other => Err(field.refuse(other, format!("one of {}", Self::CHOICES.join(", ")))),
                }
            }
        }
    };
}

choices! {
    /// What a day is.
    Day {
        /// The exchange's trade date.
        Globex = "globex",
        /// A plain UTC day.
        Utc = "utc",
    }
}
choices! {
    /// How often the front contract is examined.
    RollEvery {
        /// Before every session.
        Session = "session",
        /// Before the first session of a week, and every session near expiry.
        Week = "week",
    }
}
choices! {
    /// Which bars make the usual volume.
    BaselineMode {
        /// The last complete session.
        PreviousSession = "previous_session",
        /// The last n bars.
        Rolling = "rolling",
        /// This session so far.
        SessionToDate = "session_to_date",
        /// The same slot of earlier sessions.
        TimeOfDay = "time_of_day",
        /// A given number.
        Fixed = "fixed",
    }
}
choices! {
    /// How windows are laid.
    Frame {
        /// One after the other from the session's open.
        Aligned = "aligned",
        /// One ending with every bar.
        Sliding = "sliding",
    }
}
choices! {
    /// What a volume ratio of one means.
    Basis {
        /// An average minute.
        Minute = "minute",
        /// An average window.
        Window = "window",
    }
}
choices! {
    /// Where the profile's volume comes from.
    ProfileSource {
        /// Each bar counts once, at its close.
        Close = "close",
        /// A bar's volume at its close.
        CloseVolume = "close_volume",
        /// A bar's volume spread over its range.
        RangeVolume = "range_volume",
        /// What traded.
        Trades = "trades",
    }
}
choices! {
    /// Which of several equally heavy ticks is modal.
    Tie {
        /// The one nearest to the middle of the range.
        Middle = "middle",
        /// The one that traded first.
        Earliest = "earliest",
        /// The lowest.
        Lowest = "lowest",
    }
}
choices! {
    /// How a retest is seen.
    RetestTest {
        /// By the bar's close.
        Close = "close",
        /// By the bar's range.
        Touch = "touch",
    }
}
choices! {
    /// How a position is entered.
    EntryMode {
        /// At the next bar's open.
        NextOpen = "next_open",
        /// By a limit order.
        Limit = "limit",
        /// At the confirming bar's close, which nobody can have.
        Close = "close",
    }
}
choices! {
    /// Where a limit order stands.
    LimitAt {
        /// At the confirming bar's close.
        ConfirmingClose = "confirming_close",
        /// At the modal price.
        ModalPrice = "modal_price",
    }
}
choices! {
    /// How variance per bar is measured.
    Estimator {
        /// Garman-Klass.
        GarmanKlass = "garman_klass",
        /// Parkinson.
        Parkinson = "parkinson",
        /// Rogers-Satchell.
        RogersSatchell = "rogers_satchell",
        /// Close to close.
        CloseToClose = "close_to_close",
        /// Yang-Zhang.
        YangZhang = "yang_zhang",
    }
}
choices! {
    /// How the stop's distance is set.
    StopMode {
        /// From volatility over the holding time.
        Volatility = "volatility",
        /// Fixed.
        Fixed = "fixed",
    }
}
choices! {
    /// How the target's distance is set.
    TargetMode {
        /// As a multiple of the stop distance.
        Reward = "reward",
        /// Fixed.
        Fixed = "fixed",
    }
}
choices! {
    /// Which exit counts when a bar reaches both.
    SameBar {
        /// The stop.
        StopFirst = "stop_first",
        /// The target, to measure what the choice is worth.
        TargetFirst = "target_first",
    }
}
choices! {
    /// How a stop trails.
    Trailing {
        /// It does not.
        Off = "off",
        /// By a fixed distance.
        Fixed = "fixed",
        /// By a multiple of the mean true range.
        TrueRange = "true_range",
    }
}
choices! {
    /// How earlier trades change the size.
    LearningMode {
        /// Not at all.
        Off = "off",
        /// By the posterior win probability.
        Beta = "beta",
        /// By win rate and mean return.
        Score = "score",
    }
}
choices! {
    /// Which trades are alike.
    ContextKind {
        /// All of them.
        None = "none",
        /// Those whose modal position falls in the same bin.
        ModalBin = "modal_bin",
        /// Those whose cluster had the same rank.
        VolumeRank = "volume_rank",
        /// Those decided in the same hour of New York.
        Hour = "hour",
    }
}
choices! {
    /// How a quantity becomes whole.
    Rounding {
        /// To the nearest, halves up.
        HalfUp = "half_up",
        /// Down.
        Floor = "floor",
    }
}
choices! {
    /// What a signal against an open position does.
    Opposite {
        /// It is blocked.
        Block = "block",
        /// It closes the position first.
        Reverse = "reverse",
        /// It is taken beside it; for research only.
        Hedge = "hedge",
    }
}
choices! {
    /// How a halt ends.
    OnHalt {
        /// By the operator's reset.
        Stop = "stop",
        /// With the next session.
        NextSession = "next_session",
    }
}

macro_rules! settings {
    ($($(#[$sdoc:meta])* $section:ident: $Struct:ident {
        $($name:ident: $type:ty, [$min:expr, $max:expr], $unit:literal, $sentence:literal;)+
    })+) => {
        $(
            $(#[$sdoc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Struct { $(#[doc = $sentence] pub $name: $type),+ }
        )+

        /// Every setting of the engine, frozen.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config { $($(#[$sdoc])* pub $section: $Struct),+ }

        /// Every setting, in order.
        pub const FIELDS: &[Field] = &[$($(Field {
            section: stringify!($section),
            name: stringify!($name),
            kind: <$type as Setting>::KIND,
            optional: <$type as Setting>::OPTIONAL,
            choices: <$type as Setting>::CHOICES,
            min: $min as f64,
            max: $max as f64,
            unit: $unit,
            sentence: $sentence,
        }),+),+];

        impl Config {
            /// Reads a complete configuration from its sections.
            ///
            /// # Errors
            /// When a setting is unknown, missing, of the wrong type or out of its range, or when
            /// two settings contradict each other.
            pub fn new(sections: &[(String, Vec<(String, Value)>)]) -> Result<Self, ConfigError> {
                refuse_unknown(sections)?;
                let config = Self { $($section: $Struct {
                    $($name: {
                        let field = field(stringify!($section), stringify!($name));
                        <$type as Setting>::read(find(sections, field)?, field)?
                    }),+
                }),+ };
                config.check()?;
                Ok(config)
            }
        }
    };
}

settings! {
    /// The instrument, where it differs from what is built in.
    instrument: InstrumentSettings {
        tick_size: Option<f64>, [1e-9, 1e6], "points", "Smallest price step; empty takes the built-in one.";
        point_value: Option<f64>, [1e-9, 1e9], "USD per point", "Worth of one point of one contract; empty takes the built-in one.";
        commission: Option<f64>, [0, 1000], "USD per contract and side", "Commission; empty takes the built-in one.";
        margin: Option<f64>, [0, 1e9], "USD per contract", "Margin that one contract ties up; empty takes the instrument's, and without one there is no margin limit.";
        check_tick: bool, [0, 1], "", "Refuse prices off the tick grid.";
        allow_negative: bool, [0, 1], "", "Accept prices of zero and below; logarithmic estimators then have no value.";
    }
    /// What a session is and which hours of it count.
    session: SessionSettings {
        hours: Vec<String>, [0, 0], "", "Allowed hours, such as \"09:30-16:00 America/New_York\"; an empty list allows the whole session.";
        day: Day, [0, 0], "", "Exchange sessions, or plain UTC days for comparison with older systems.";
    }
    /// What the end of the allowed hours does.
    hours: HoursSettings {
        bind_entries: bool, [0, 1], "", "Pending retests and working orders end with the hours in which their cluster was decided.";
    }
    /// Which contract month is in front.
    roll: RollSettings {
        lookback_hours: f64, [0.1, 240], "hours", "Session time before a session's open over which the contracts' volumes are compared.";
        every: RollEvery, [0, 0], "", "How often the front contract is examined; near expiry it is every session.";
    }
    /// The usual volume of a minute.
    baseline: BaselineSettings {
        mode: BaselineMode, [0, 0], "", "Which bars make the usual volume.";
        bars: i64, [1, 1_000_000], "minutes", "Length of the rolling baseline.";
        min_bars: i64, [1, 100_000], "minutes", "Shortest session so far that makes a session-to-date baseline.";
        sessions: i64, [1, 260], "sessions", "Sessions in the time-of-day baseline.";
        min_sessions: i64, [1, 260], "sessions", "Fewest sessions that make a time-of-day baseline.";
        value: f64, [1e-9, 1e12], "contracts per minute", "The fixed baseline.";
    }
    /// What a cluster is.
    cluster: ClusterSettings {
        minutes: i64, [1, 1440], "minutes", "Length of a cluster window, rounded up to whole bars.";
        frame: Frame, [0, 0], "", "Windows one after the other from the session's open, or one ending with every bar.";
        suppress_overlap: bool, [0, 1], "", "Record a sliding cluster that overlaps the last one without ranking it.";
        basis: Basis, [0, 0], "", "Whether a volume ratio of one is an average minute or an average window.";
        threshold: f64, [0, 1e6], "ratio", "Smallest volume ratio of a cluster.";
    }
    /// Which clusters go on.
    rank: RankSettings {
        hours: f64, [0, 240], "hours", "How far back clusters compete; 0 means the whole session so far.";
        top_n: i64, [1, 1000], "rank", "Worst rank that goes on.";
        max_per_session: Option<i64>, [1, 100_000], "signals", "Most signals armed in a session; empty sets no limit.";
        cooldown_minutes: i64, [0, 100_000], "minutes", "Shortest time between a confirmed signal and the next.";
    }
    /// Volume at price.
    profile: ProfileSettings {
        start_minute: i64, [-1440, 1440], "minutes", "Start of the profile, from the window's start.";
        end_minute: i64, [-1439, 1441], "minutes", "End of the profile, from the window's start; beyond the window it delays the decision.";
        source: ProfileSource, [0, 0], "", "How a bar's volume is placed on prices.";
        tie: Tie, [0, 0], "", "Which of several equally heavy ticks is the modal price.";
    }
    /// The move before the cluster.
    momentum: MomentumSettings {
        start_minute: i64, [-1440, 1440], "minutes", "Start of the momentum interval, from the window's start.";
        end_minute: i64, [-1439, 1441], "minutes", "End of the momentum interval, from the window's start; beyond the window it delays the decision.";
    }
    /// Direction and strength.
    signal: SignalSettings {
        long_threshold: f64, [1e-6, 1], "position", "Highest modal position of a long signal.";
        short_threshold: f64, [0, 0.999_999], "position", "Lowest modal position of a short signal.";
        shorts: bool, [0, 1], "", "Whether short signals are made.";
        w_position: f64, [0, 1], "weight", "Weight of the modal position in the strength.";
        w_volume: f64, [0, 1], "weight", "Weight of the volume ratio in the strength.";
        w_momentum: f64, [0, 1], "weight", "Weight of the momentum in the strength.";
        volume_cap: f64, [1e-6, 1e6], "ratio", "Volume ratio that counts as full strength.";
        momentum_scale: f64, [0, 1e6], "per unit return", "Momentum times this is its strength.";
        min_strength: f64, [0, 1], "strength", "Smallest strength of a signal.";
        min_strength_short: Option<f64>, [0, 1], "strength", "Smallest strength of a short signal; empty takes min_strength.";
    }
    /// The return to the modal price.
    retest: RetestSettings {
        enabled: bool, [0, 1], "", "Wait for a retest; without it a signal is confirmed at its decision.";
        test: RetestTest, [0, 0], "", "Whether the bar's close or its range must come near the modal price.";
        tolerance: Distance, [0, 1e6], "points or ticks", "How near the modal price a retest must come.";
        timeout_minutes: i64, [1, 100_000], "minutes", "How long a retest may take from the decision.";
    }
    /// How a position is entered.
    entry: EntrySettings {
        mode: EntryMode, [0, 0], "", "At the next open, by a limit order, or at the confirming close (research only).";
        max_wait_minutes: i64, [1, 100_000], "minutes", "How long a next-open entry waits for a bar.";
        adverse: bool, [0, 1], "", "Pay the worse of the entry bar's open and close.";
        limit_at: LimitAt, [0, 0], "", "Price of the limit order.";
        offset_ticks: i64, [0, 100_000], "ticks", "How much better than that price the limit order stands.";
        validity_minutes: Option<i64>, [1, 100_000], "minutes", "How long a limit order lives; empty means the session.";
        through_ticks: i64, [0, 1000], "ticks", "How far beyond the limit a bar must trade to fill it.";
    }
    /// Volatility for stops.
    volatility: VolatilitySettings {
        estimator: Estimator, [0, 0], "", "First estimator of the chain.";
        minutes: i64, [2, 100_000], "minutes", "Bars that the estimator averages.";
        min_minutes: i64, [2, 100_000], "minutes", "Fewest bars for the estimator.";
        atr_minutes: i64, [1, 100_000], "minutes", "Bars that the average true range covers when the estimator has too few.";
        atr_min_minutes: i64, [1, 100_000], "minutes", "Fewest bars for the average true range.";
    }
    /// Where a loss is taken.
    stop: StopSettings {
        mode: StopMode, [0, 0], "", "From volatility over the holding time, or a fixed distance.";
        k: f64, [0, 1000], "sigma", "Stop distance in standard deviations of the holding time.";
        min_pct: f64, [0, 100], "percent of price", "Smallest stop distance.";
        distance: Distance, [0, 1e6], "points or ticks", "The fixed stop distance.";
    }
    /// Where a profit is taken.
    target: TargetSettings {
        mode: TargetMode, [0, 0], "", "A multiple of the stop distance, or a fixed distance.";
        reward: f64, [0, 1000], "ratio", "Target distance as a multiple of the stop distance.";
        distance: Distance, [0, 1e6], "points or ticks", "The fixed target distance.";
    }
    /// How a position ends.
    exit: ExitSettings {
        max_hold_minutes: i64, [1, 100_000], "minutes", "Longest holding time.";
        target_through_ticks: i64, [0, 1000], "ticks", "How far beyond the target a bar must trade to fill it; 0 means touch.";
        same_bar: SameBar, [0, 0], "", "Which exit counts when a bar reaches both.";
        flatten_minutes: i64, [0, 1440], "minutes", "How long before the session's close positions are closed and orders die.";
        trailing: Trailing, [0, 0], "", "Whether and how the stop follows the price.";
        trailing_distance: Distance, [0, 1e6], "points or ticks", "Distance of a fixed trailing stop.";
        trailing_multiple: f64, [0.01, 1000], "true ranges", "Distance of a true-range trailing stop.";
        trailing_bars: i64, [1, 10_000], "bars", "Bars in the mean true range of the trailing stop.";
        scale_out: Vec<Leg>, [0, 0], "", "Parts of the position that leave at their own targets.";
    }
    /// What trading costs besides commission.
    costs: CostSettings {
        slippage_ticks: f64, [0, 1000], "ticks per contract and side", "Slippage.";
    }
    /// The account.
    account: AccountSettings {
        balance: f64, [1, 1e12], "USD", "Balance at the start.";
    }
    /// How earlier trades change the size.
    learning: LearningSettings {
        mode: LearningMode, [0, 0], "", "Multiplier from the posterior win probability, from win rate and mean return, or none.";
        context: ContextKind, [0, 0], "", "Which trades count as alike.";
        bins: i64, [1, 1000], "bins", "Number of modal-position bins.";
        lookback_days: Option<i64>, [1, 100_000], "days", "Age of the oldest trade that counts; empty means all.";
        min_trades: i64, [0, 100_000], "trades", "Fewest trades before the multiplier differs from 1.";
        scale: f64, [0, 1000], "", "How strongly the record moves the multiplier.";
        max: f64, [1, 1000], "", "Largest multiplier.";
    }
    /// How many contracts.
    size: SizeSettings {
        base: f64, [0, 10_000], "contracts", "Contracts before strength and record.";
        signal_scale: f64, [0, 1000], "", "How strongly the strength moves the size.";
        max_contracts: i64, [1, 10_000], "contracts", "Most contracts of one trade.";
        rounding: Rounding, [0, 0], "", "How the quantity becomes whole.";
    }
    /// Limits on risk.
    risk: RiskSettings {
        max_risk_per_trade: Option<f64>, [1e-6, 1], "fraction of equity", "Largest loss at the stop; empty sets no limit.";
        strict: bool, [0, 1], "", "Let the risk and margin limits reduce a trade to none instead of one contract.";
        max_open_contracts: Option<i64>, [1, 100_000], "contracts", "Most contracts open or working; empty sets no limit.";
        max_trades_per_session: Option<i64>, [1, 100_000], "trades", "Most trades of a session; empty sets no limit.";
        max_consecutive_losses: Option<i64>, [1, 100_000], "trades", "Losses in a row that pause trading until the next session; empty sets no limit.";
        daily_loss_pct: Option<f64>, [1e-6, 100], "percent of equity at the session's open", "Loss that pauses trading until the next session; empty sets no limit.";
        max_drawdown_pct: Option<f64>, [1e-6, 100], "percent of the peak", "Drawdown that halts trading; empty sets no limit.";
        opposite: Opposite, [0, 0], "", "What a signal against an open position does.";
        on_halt: OnHalt, [0, 0], "", "Whether a halt lasts until the operator resets it or until the next session.";
    }
    /// How results are judged; no part of the configuration's identity.
    statistics: StatisticsSettings {
        seed: i64, [0, 9_007_199_254_740_991i64], "", "Seed of the bootstrap.";
        resamples: i64, [100, 1_000_000], "samples", "Bootstrap samples.";
        block_days: i64, [1, 1000], "trade dates", "Mean length of a block of the daily bootstrap.";
    }
}

fn field(section: &str, name: &str) -> &'static Field {
    FIELDS
        .iter()
        .find(|field| field.section == section && field.name == name)
        .unwrap_or_else(|| unreachable!("Invariant: the macro declares every field it reads"))
}

fn find<'a>(
    sections: &'a [(String, Vec<(String, Value)>)],
    field: &Field,
) -> Result<&'a Value, ConfigError> {
    sections
        .iter()
        .filter(|(section, _)| section == field.section)
        .flat_map(|(_, entries)| entries)
        .find(|(name, _)| name == field.name)
        .map(|(_, value)| value)
        .ok_or_else(|| ConfigError {
            field: field.path(),
            problem: "missing".to_owned(),
            found: "nothing".to_owned(),
            expected: "a value, or a preset to take it from".to_owned(),
        })
}

fn refuse_unknown(sections: &[(String, Vec<(String, Value)>)]) -> Result<(), ConfigError> {
    for (section, entries) in sections {
        let known: Vec<&str> = FIELDS
            .iter()
            .filter(|field| field.section == section)
            .map(|field| field.name)
            .collect();
        if known.is_empty() {
            let mut names: Vec<&str> = FIELDS.iter().map(|field| field.section).collect();
            names.dedup();
            return Err(unknown(section.clone(), "section", &names));
        }
        for (name, _) in entries {
            if !known.contains(&name.as_str()) {
                return Err(unknown(format!("{section}.{name}"), "setting", &known));
            }
        }
    }
    Ok(())
}

fn unknown(field: String, what: &str, known: &[&str]) -> ConfigError {
    ConfigError {
        found: field.clone(),
        field,
        problem: format!("unknown {what}"),
        expected: format!("one of {}", known.join(", ")),
    }
}

impl Config {
    /// Checks what no single range can say.
    fn check(&self) -> Result<(), ConfigError> {
        let orders: [(&str, i64, i64); 4] = [
            (
                "profile.end_minute",
                self.profile.start_minute,
                self.profile.end_minute,
            ),
            (
                "momentum.end_minute",
                self.momentum.start_minute,
                self.momentum.end_minute,
            ),
            (
                "volatility.minutes",
                self.volatility.min_minutes - 1,
                self.volatility.minutes,
            ),
            (
                "volatility.atr_minutes",
                self.volatility.atr_min_minutes - 1,
                self.volatility.atr_minutes,
            ),
        ];
        for (field, low, high) in orders {
            if high <= low {
                return Err(contradiction(field, high, format!("more than {low}")));
            }
        }
        if self.baseline.min_sessions > self.baseline.sessions {
            return Err(contradiction(
                "baseline.min_sessions",
                self.baseline.min_sessions,
                format!("at most baseline.sessions, {}", self.baseline.sessions),
            ));
        }
        if self.signal.shorts && self.signal.long_threshold >= self.signal.short_threshold {
            return Err(contradiction(
                "signal.long_threshold",
                self.signal.long_threshold,
                format!(
                    "below signal.short_threshold, {}",
                    self.signal.short_threshold
                ),
            ));
        }
        Ok(())
    }
}

fn contradiction(field: &str, found: impl ToString, expected: String) -> ConfigError {
    ConfigError {
        field: field.to_owned(),
        problem: "contradicts another setting".to_owned(),
        found: found.to_string(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_reads_points_and_ticks() {
        assert_eq!(Distance::parse("2 ticks"), Some(Distance::Ticks(2.0)));
        assert_eq!(Distance::parse("0.75 points"), Some(Distance::Points(0.75)));
        assert_eq!(Distance::parse("0.75"), None);
        assert_eq!(Distance::parse("-1 ticks"), None);
        assert_eq!(Distance::parse("nan ticks"), None);
        assert_eq!(Distance::Points(0.75).in_nanos(250_000_000), 750_000_000);
    }

    #[test]
    fn unknown_section_is_refused_by_name() {
        let error = Config::new(&[("clutser".to_owned(), vec![])]).unwrap_err();
        assert_eq!(error.field, "clutser");
    }

    #[test]
    fn every_field_has_a_sentence() {
        for field in FIELDS {
            assert!(field.sentence.ends_with('.'), "{}", field.path());
        }
    }
}
