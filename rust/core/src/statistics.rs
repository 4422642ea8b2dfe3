//! What a backtest came to, in numbers that each carry their definition.
//!
//! [`DEFINITIONS`] is the one list of names, units and formulas; [`compute`] gives a value for
//! every entry of it, in its order. A number that does not exist is none with a reason, never zero.
//! Trades that are still open are counted and otherwise left out.

use std::collections::BTreeMap;

use crate::bootstrap::{self, Draws, Interval};
use crate::error::ConfigError;

/// Upper 2.5 % point of the standard normal distribution.
const NORMAL_975: f64 = 1.959_963_984_540_054;
const MINUTE_NS: f64 = 6e10;
const DAY_NS: f64 = 86_400e9;
/// Trade dates in a week.
const DAYS_PER_WEEK: f64 = 5.0;
/// Fewest trades, and fewest trade dates with a trade, for a verdict.
const VERDICT_TRADES: usize = 30;
const VERDICT_DATES: usize = 10;
/// Largest p-value that rules luck out.
const VERDICT_P: f64 = 0.05;

/// Columns of trades, one row a trade, in the order of their exits. All are of one length.
#[derive(Clone, Copy, Debug)]
pub struct Trades<'a> {
    /// Result after costs, USD.
    pub net: &'a [f64],
    /// Result before costs, USD.
    pub gross: &'a [f64],
    /// Costs of both sides, USD.
    pub costs: &'a [f64],
    /// Net result as a fraction of the notional value at entry.
    pub returns: &'a [f64],
    /// Loss at the stop: stop distance times point value times quantity, USD.
    pub risk_usd: &'a [f64],
    /// Stop distance, points.
    pub stop_points: &'a [f64],
    /// Result of one contract before costs, points.
    pub points: &'a [f64],
    /// Largest adverse excursion, points.
    pub mae_points: &'a [f64],
    /// Largest favourable excursion, points.
    pub mfe_points: &'a [f64],
    /// Entry, ns UTC.
    pub entry_time: &'a [i64],
    /// Exit, ns UTC.
    pub exit_time: &'a [i64],
    /// Trade date of the session in which the trade was decided, days since 1970.
    pub trade_date: &'a [i32],
    /// Whether the trade is still open.
    pub open: &'a [bool],
    /// Whether its last bar reached both stop and target.
    pub ambiguous: &'a [bool],
    /// Whether several ticks were equally heavy in its profile.
    pub modal_tied: &'a [bool],
}

/// The account over time.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// Balance at the start, USD.
    pub balance: f64,
    /// Equity at the end of every trade date that had a bar, USD.
    pub daily_equity: &'a [f64],
    /// Times of all marks, ns UTC, ascending.
    pub mark_time: &'a [i64],
    /// Equity at all marks, USD.
    pub mark_equity: &'a [f64],
}

/// The bars that were traded on.
#[derive(Clone, Copy, Debug)]
pub struct Bars<'a> {
    /// Starts of the bars, ns UTC, ascending.
    pub start: &'a [i64],
    /// Length of a bar, ns.
    pub interval_ns: i64,
}

/// Name, unit and meaning of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Name.
    pub name: &'static str,
    /// Unit.
    pub unit: &'static str,
    /// Formula and, where it has one, source, in one sentence.
    pub definition: &'static str,
}

/// One number of the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistic {
    /// Name.
    pub name: &'static str,
    /// Value, where it exists.
    pub value: Option<f64>,
    /// Why there is no value.
    pub reason: Option<&'static str>,
    /// Unit.
    pub unit: &'static str,
    /// Formula and, where it has one, source, in one sentence.
    pub definition: &'static str,
}

/// All numbers of the result, and the sentence on luck.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// One for each of [`DEFINITIONS`], in its order.
    pub list: Vec<Statistic>,
    /// Whether the mean trade can be told from luck, in plain words.
    pub verdict: String,
}

const fn define(name: &'static str, unit: &'static str, definition: &'static str) -> Definition {
    Definition {
        name,
        unit,
        definition,
    }
}

/// Every statistic, in order.
pub const DEFINITIONS: &[Definition] = &[
    define("trades", "trades", "Closed trades."),
    define(
        "open_trades",
        "trades",
        "Trades still open at the end, which no other trade statistic holds.",
    ),
    define(
        "sessions",
        "trade dates",
        "Trade dates with at least one bar.",
    ),
    define("bars", "bars", "Bars traded on, without context bars."),
    define("wins", "trades", "Trades with a net result above zero."),
    define(
        "losses",
        "trades",
        "Trades with a net result of zero or below.",
    ),
    define("win_rate", "share", "wins / trades."),
    define(
        "win_rate_low",
        "share",
        "Lower end of the 95 % interval of the win rate: (p + z^2/2n - z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.96 (E. B. Wilson, JASA 22, 1927).",
    ),
    define(
        "win_rate_high",
        "share",
        "Upper end of the 95 % interval of the win rate, as win_rate_low with + z (E. B. Wilson, JASA 22, 1927).",
    ),
    define("net_usd", "USD", "Sum of the results after costs."),
    define("gross_usd", "USD", "Sum of the results before costs."),
    define(
        "costs_usd",
        "USD",
        "Sum of commission and slippage, both sides.",
    ),
    define(
        "return_pct",
        "percent",
        "(last equity - starting balance) / starting balance * 100, open positions marked at the last close.",
    ),
    define(
        "expectancy_usd",
        "USD per trade",
        "Mean net result of a trade.",
    ),
    define(
        "expectancy_points",
        "points per contract",
        "Mean over trades of direction * (exit - entry), before costs.",
    ),
    define(
        "expectancy_r",
        "R",
        "Mean over trades of net / (stop distance * point value * quantity).",
    ),
    define(
        "mean_return_pct",
        "percent",
        "Mean over trades of net / notional value at entry * 100.",
    ),
    define(
        "gross_profit_usd",
        "USD",
        "Sum of the net results of the wins.",
    ),
    define(
        "gross_loss_usd",
        "USD",
        "Sum of the net results of the losses, as a positive number.",
    ),
    define(
        "profit_factor",
        "ratio",
        "gross_profit_usd / gross_loss_usd.",
    ),
    define(
        "payoff",
        "ratio",
        "Mean win / mean loss, both after costs and as positive numbers.",
    ),
    define("average_win_usd", "USD", "Mean net result of the wins."),
    define(
        "average_loss_usd",
        "USD",
        "Mean net result of the losses, negative.",
    ),
    define("largest_win_usd", "USD", "Largest net result of a win."),
    define(
        "largest_loss_usd",
        "USD",
        "Lowest net result of a loss, negative.",
    ),
    define(
        "longest_winning_streak",
        "trades",
        "Most wins one after the other, by exit.",
    ),
    define(
        "longest_losing_streak",
        "trades",
        "Most losses one after the other, by exit.",
    ),
    define(
        "mean_mae_points",
        "points",
        "Mean over trades of the largest adverse excursion (J. Sweeney, \"Maximum Adverse Excursion\", 1997).",
    ),
    define(
        "mean_mfe_points",
        "points",
        "Mean over trades of the largest favourable excursion.",
    ),
    define(
        "mean_mae_r",
        "R",
        "Mean over trades of the largest adverse excursion / stop distance.",
    ),
    define(
        "mean_mfe_r",
        "R",
        "Mean over trades of the largest favourable excursion / stop distance.",
    ),
    define(
        "max_drawdown_usd",
        "USD",
        "Largest fall of equity from its peak so far, over all marks, the starting balance being the first peak.",
    ),
    define(
        "max_drawdown_pct",
        "percent",
        "Largest fall of equity from its peak so far / that peak * 100, over all marks.",
    ),
    define(
        "longest_drawdown_days",
        "calendar days",
        "Longest time from a peak of equity to the first mark that is as high again, or to the last mark.",
    ),
    define(
        "longest_drawdown_marks",
        "marks",
        "Most marks one after the other below the peak so far.",
    ),
    define(
        "sharpe",
        "per sqrt(year)",
        "mean(r) / sd(r) * sqrt(252), r = equity / equity of the trade date before - 1, sd with divisor n - 1, rate zero, trade dates without a trade included (W. F. Sharpe, Journal of Portfolio Management 21, 1994).",
    ),
    define(
        "sharpe_low",
        "per sqrt(year)",
        "Lower end of the 95 % interval of the Sharpe ratio: 2.5 % quantile over stationary block bootstrap samples of the daily returns (Politis and Romano, JASA 89, 1994).",
    ),
    define(
        "sharpe_high",
        "per sqrt(year)",
        "Upper end of the 95 % interval of the Sharpe ratio: 97.5 % quantile, as sharpe_low.",
    ),
    define(
        "sortino",
        "per sqrt(year)",
        "mean(r) / sqrt(mean(min(r, 0)^2)) * sqrt(252), r as in sharpe (F. A. Sortino, R. van der Meer, Journal of Portfolio Management 17, 1991).",
    ),
    define(
        "sortino_low",
        "per sqrt(year)",
        "Lower end of the 95 % interval of the Sortino ratio, as sharpe_low.",
    ),
    define(
        "sortino_high",
        "per sqrt(year)",
        "Upper end of the 95 % interval of the Sortino ratio, as sharpe_high.",
    ),
    define(
        "calmar",
        "per year",
        "((1 + r_1) ... (1 + r_n))^(252/n) - 1, over the largest fall from a peak of that product as a fraction of the peak, r as in sharpe, so from equity at the end of trade dates (T. W. Young, Futures 20, 1991).",
    ),
    define(
        "calmar_low",
        "per year",
        "Lower end of the 95 % interval of the Calmar ratio, as sharpe_low.",
    ),
    define(
        "calmar_high",
        "per year",
        "Upper end of the 95 % interval of the Calmar ratio, as sharpe_high.",
    ),
    define(
        "exposure",
        "share",
        "Bars during which a position was open / bars, a bar with several positions counted once, open trades included.",
    ),
    define(
        "trades_per_week",
        "trades per week",
        "trades / sessions * 5.",
    ),
    define(
        "mean_holding_minutes",
        "minutes",
        "Mean over trades of exit time - entry time.",
    ),
    define(
        "ambiguous_exits",
        "trades",
        "Trades whose exit bar reached both stop and target, so that the order inside the bar was assumed.",
    ),
    define("ambiguous_share", "share", "ambiguous_exits / trades."),
    define(
        "modal_tied",
        "trades",
        "Trades whose modal price was one of several equally heavy ticks.",
    ),
    define(
        "mean_trade_low_usd",
        "USD per trade",
        "Lower end of the 95 % interval of the mean net trade: 2.5 % quantile over bootstrap samples that draw whole trade dates.",
    ),
    define(
        "mean_trade_high_usd",
        "USD per trade",
        "Upper end of the 95 % interval of the mean net trade: 97.5 % quantile, as mean_trade_low_usd.",
    ),
    define(
        "p_value",
        "probability",
        "Two-sided bootstrap p-value of the mean net trade against zero: (1 + #(|m* - m| >= |m|)) / (1 + samples), m* the mean of a sample that draws whole trade dates (P. Hall, S. R. Wilson, Biometrics 47, 1991).",
    ),
];

const NO_TRADES: &str = "no closed trades";
const NO_WINS: &str = "no wins";
const NO_LOSSES: &str = "no losses";
const NO_MARKS: &str = "no equity marks";
const NO_SESSIONS: &str = "no sessions";
const NO_BARS: &str = "no bars";
const FEW_SESSIONS: &str = "fewer than two trade dates";
const RUINED: &str = "equity fell to zero or below";
const STEADY: &str = "daily returns do not vary";
const NEVER_FELL: &str = "no trade date lost money";
const UNBOUNDED: &str = "too many samples have no divisor";
const ONE_DATE: &str = "trades on fewer than two trade dates";

type Outcome = Result<f64, &'static str>;

fn check_lengths(columns: &[(&'static str, usize)]) -> Result<(), ConfigError> {
    let rows = columns.first().map_or(0, |column| column.1);
    match columns.iter().find(|column| column.1 != rows) {
        None => Ok(()),
        Some((name, found)) => Err(ConfigError {
            field: (*name).to_owned(),
            problem: "length differs from the other columns".to_owned(),
            found: found.to_string(),
            expected: rows.to_string(),
        }),
    }
}

impl Trades<'_> {
    fn check(&self) -> Result<(), ConfigError> {
        check_lengths(&[
            ("net", self.net.len()),
            ("gross", self.gross.len()),
            ("costs", self.costs.len()),
            ("returns", self.returns.len()),
            ("risk_usd", self.risk_usd.len()),
            ("stop_points", self.stop_points.len()),
            ("points", self.points.len()),
            ("mae_points", self.mae_points.len()),
            ("mfe_points", self.mfe_points.len()),
            ("entry_time", self.entry_time.len()),
            ("exit_time", self.exit_time.len()),
            ("trade_date", self.trade_date.len()),
            ("open", self.open.len()),
            ("ambiguous", self.ambiguous.len()),
            ("modal_tied", self.modal_tied.len()),
        ])
    }

    /// Returns the rows of the closed trades.
    fn closed(&self) -> Vec<usize> {
        (0..self.net.len()).filter(|row| !self.open[*row]).collect()
    }
}

/// Returns every statistic of [`DEFINITIONS`] and the verdict.
///
/// # Errors
/// When columns that belong together differ in length.
pub fn compute(
    trades: Trades<'_>,
    account: Account<'_>,
    bars: Bars<'_>,
    draws: Draws,
) -> Result<Statistics, ConfigError> {
    trades.check()?;
    check_lengths(&[
        ("mark_equity", account.mark_equity.len()),
        ("mark_time", account.mark_time.len()),
    ])?;
    let closed = trades.closed();
    let mut values = Values(Vec::with_capacity(DEFINITIONS.len()));
    counts(&mut values, &trades, &closed, &account, &bars);
    money(&mut values, &trades, &closed, &account);
    excursions(&mut values, &trades, &closed);
    drawdowns(&mut values, &account);
    daily_ratios(&mut values, &account, draws);
    activity(&mut values, &trades, &closed, &account, &bars);
    let (test, dates) = test_mean(&trades, &closed, draws);
    let bound = |end: fn(Interval) -> f64| match (test, closed.len()) {
        (_, 0) => Err(NO_TRADES),
        (Some(test), _) => Ok(end(test.interval)),
        (None, _) => Err(ONE_DATE),
    };
    values.put("mean_trade_low_usd", bound(|interval| interval.low));
    values.put("mean_trade_high_usd", bound(|interval| interval.high));
    let p_value = test.map(|test| test.p_value);
    values.put(
        "p_value",
        p_value.ok_or(if closed.is_empty() {
            NO_TRADES
        } else {
            ONE_DATE
        }),
    );
    Ok(Statistics {
        list: values.into_list(),
        verdict: verdict(test, closed.len(), dates),
    })
}

/// Values on their way into the order of the definitions.
struct Values(Vec<(&'static str, Outcome)>);

impl Values {
    fn put(&mut self, name: &'static str, value: Outcome) {
        self.0.push((name, value));
    }

    fn count(&mut self, name: &'static str, count: usize) {
        self.put(name, Ok(count as f64));
    }

    fn into_list(self) -> Vec<Statistic> {
        DEFINITIONS
            .iter()
            .zip(self.0)
            .map(|(entry, (name, value))| {
                debug_assert_eq!(entry.name, name);
                Statistic {
                    name: entry.name,
                    value: value.ok(),
                    reason: value.err(),
                    unit: entry.unit,
                    definition: entry.definition,
                }
            })
            .collect()
    }
}

fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

fn divide(dividend: f64, divisor: f64, reason: &'static str) -> Outcome {
    if divisor == 0.0 {
        Err(reason)
    } else {
        Ok(dividend / divisor)
    }
}

fn counts(
    values: &mut Values,
    trades: &Trades<'_>,
    closed: &[usize],
    account: &Account<'_>,
    bars: &Bars<'_>,
) {
    let wins = closed.iter().filter(|row| trades.net[**row] > 0.0).count();
    values.count("trades", closed.len());
    values.count("open_trades", trades.net.len() - closed.len());
    values.count("sessions", account.daily_equity.len());
    values.count("bars", bars.start.len());
    values.count("wins", wins);
    values.count("losses", closed.len() - wins);
    let interval = wilson(wins as u64, closed.len() as u64);
    values.put(
        "win_rate",
        divide(wins as f64, closed.len() as f64, NO_TRADES),
    );
    values.put(
        "win_rate_low",
        interval.map(|ends| ends.low).ok_or(NO_TRADES),
    );
    values.put(
        "win_rate_high",
        interval.map(|ends| ends.high).ok_or(NO_TRADES),
    );
}

/// Returns the Wilson 95 % interval of a share, or nothing without a trial.
///
/// `(p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)` with z = 1.96. Source: E.
/// B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
///
/// # Examples
/// ```
/// # use clustercore_core::statistics::wilson;
/// let ends = wilson(5, 10).unwrap();
/// assert!((ends.low - 0.2366).abs() < 1e-4 && (ends.high - 0.7634).abs() < 1e-4);
/// ```
#[must_use]
pub fn wilson(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let n = trials as f64;
    let share = successes as f64 / n;
    let square = NORMAL_975 * NORMAL_975;
    let middle = share + square / (2.0 * n);
    let reach = NORMAL_975 * (share * (1.0 - share) / n + square / (4.0 * n * n)).sqrt();
    let scale = 1.0 + square / n;
    // Rounding must not leave a sliver where the end is exact.
    let low = if successes == 0 {
        0.0
    } else {
        (middle - reach) / scale
    };
    let high = if successes == trials {
        1.0
    } else {
        (middle + reach) / scale
    };
    Some(Interval { low, high })
}

fn money(values: &mut Values, trades: &Trades<'_>, closed: &[usize], account: &Account<'_>) {
    let total = |column: &[f64]| sum(closed.iter().map(|row| column[*row]));
    let count = closed.len() as f64;
    let net = total(trades.net);
    values.put("net_usd", Ok(net));
    values.put("gross_usd", Ok(total(trades.gross)));
    values.put("costs_usd", Ok(total(trades.costs)));
    let last = account.daily_equity.last().or(account.mark_equity.last());
    let gain = last.map(|equity| (equity - account.balance) / account.balance * 100.0);
    values.put("return_pct", gain.ok_or(NO_MARKS));
    values.put("expectancy_usd", divide(net, count, NO_TRADES));
    values.put(
        "expectancy_points",
        divide(total(trades.points), count, NO_TRADES),
    );
    let in_risk = sum(closed
        .iter()
        .map(|row| trades.net[*row] / trades.risk_usd[*row]));
    values.put("expectancy_r", divide(in_risk, count, NO_TRADES));
    values.put(
        "mean_return_pct",
        divide(100.0 * total(trades.returns), count, NO_TRADES),
    );

    let results = || closed.iter().map(|row| trades.net[*row]);
    let wins: Vec<f64> = results().filter(|net| *net > 0.0).collect();
    let losses: Vec<f64> = results().filter(|net| *net <= 0.0).collect();
    let profit = sum(wins.iter().copied());
    // From zero less the sum: without losses this is 0 and not -0.
    let loss = 0.0 - sum(losses.iter().copied());
    let no_loss = if closed.is_empty() {
        NO_TRADES
    } else {
        NO_LOSSES
    };
    let no_win = if closed.is_empty() {
        NO_TRADES
    } else {
        NO_WINS
    };
    let average_win = divide(profit, wins.len() as f64, no_win);
    let average_loss = divide(0.0 - loss, losses.len() as f64, no_loss);
    values.put("gross_profit_usd", Ok(profit));
    values.put("gross_loss_usd", Ok(loss));
    values.put("profit_factor", divide(profit, loss, no_loss));
    let payoff = average_win.and_then(|win| divide(win, -average_loss?, NO_LOSSES));
    values.put("payoff", payoff);
    values.put("average_win_usd", average_win);
    values.put("average_loss_usd", average_loss);
    values.put(
        "largest_win_usd",
        wins.iter().copied().reduce(f64::max).ok_or(no_win),
    );
    values.put(
        "largest_loss_usd",
        losses.iter().copied().reduce(f64::min).ok_or(no_loss),
    );
    let (winning, losing) = streaks(results());
    values.count("longest_winning_streak", winning);
    values.count("longest_losing_streak", losing);
}

fn streaks(results: impl Iterator<Item = f64>) -> (usize, usize) {
    let (mut longest, mut current) = ([0; 2], [0; 2]);
    for net in results {
        let side = usize::from(net <= 0.0);
        current[side] += 1;
        current[1 - side] = 0;
        longest[side] = longest[side].max(current[side]);
    }
    (longest[0], longest[1])
}

fn excursions(values: &mut Values, trades: &Trades<'_>, closed: &[usize]) {
    let count = closed.len() as f64;
    let mut mean = |name, value: &dyn Fn(usize) -> f64| {
        values.put(
            name,
            divide(sum(closed.iter().map(|row| value(*row))), count, NO_TRADES),
        );
    };
    mean("mean_mae_points", &|row| trades.mae_points[row]);
    mean("mean_mfe_points", &|row| trades.mfe_points[row]);
    mean("mean_mae_r", &|row| {
        trades.mae_points[row] / trades.stop_points[row]
    });
    mean("mean_mfe_r", &|row| {
        trades.mfe_points[row] / trades.stop_points[row]
    });
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Drawdown {
    usd: f64,
    share: f64,
    days: f64,
    marks: usize,
}

fn drawdown(balance: f64, times: &[i64], equities: &[f64]) -> Option<Drawdown> {
    let mut found = Drawdown::default();
    let (mut peak, mut peak_time, mut below) = (balance, *times.first()?, 0);
    for (time, equity) in times.iter().zip(equities) {
        // The stretch that ends with this mark counts, whether the mark is a new peak or not.
        let days = (time - peak_time) as f64 / DAY_NS;
        if *equity >= peak {
            if below > 0 {
                found.days = found.days.max(days);
            }
            (peak, peak_time, below) = (*equity, *time, 0);
        } else {
            below += 1;
            found.usd = found.usd.max(peak - equity);
            found.share = found.share.max((peak - equity) / peak);
            found.days = found.days.max(days);
            found.marks = found.marks.max(below);
        }
    }
    Some(found)
}

fn drawdowns(values: &mut Values, account: &Account<'_>) {
    let found = drawdown(account.balance, account.mark_time, account.mark_equity).ok_or(NO_MARKS);
    values.put("max_drawdown_usd", found.map(|drawdown| drawdown.usd));
    values.put(
        "max_drawdown_pct",
        found.map(|drawdown| drawdown.share * 100.0),
    );
    values.put("longest_drawdown_days", found.map(|drawdown| drawdown.days));
    values.put(
        "longest_drawdown_marks",
        found.map(|drawdown| drawdown.marks as f64),
    );
}

/// Returns the daily returns of an account, or why there are none.
fn daily_returns(account: &Account<'_>) -> Result<Vec<f64>, &'static str> {
    if account.daily_equity.len() < 2 {
        return Err(FEW_SESSIONS);
    }
    let mut before = account.balance;
    let mut returns = Vec::with_capacity(account.daily_equity.len());
    for equity in account.daily_equity {
        if !(*equity > 0.0 && before > 0.0) {
            return Err(RUINED);
        }
        returns.push(equity / before - 1.0);
        before = *equity;
    }
    Ok(returns)
}

fn daily_ratios(values: &mut Values, account: &Account<'_>, draws: Draws) {
    let found = daily_returns(account).and_then(|returns| {
        let ratios = bootstrap::ratios(&returns).ok_or(RUINED)?;
        let intervals = bootstrap::ratio_intervals(&returns, draws).ok_or(RUINED)?;
        Ok([
            (ratios.sharpe, intervals.sharpe, STEADY),
            (ratios.sortino, intervals.sortino, NEVER_FELL),
            (ratios.calmar, intervals.calmar, NEVER_FELL),
        ])
    });
    let names = [
        ["sharpe", "sharpe_low", "sharpe_high"],
        ["sortino", "sortino_low", "sortino_high"],
        ["calmar", "calmar_low", "calmar_high"],
    ];
    for (i, [name, low, high]) in names.into_iter().enumerate() {
        let point = found.and_then(|ratios| {
            let (value, _, reason) = ratios[i];
            if value.is_finite() {
                Ok(value)
            } else {
                Err(reason)
            }
        });
        let ends = point.and_then(|_| found?[i].1.ok_or(UNBOUNDED));
        values.put(name, point);
        values.put(low, ends.map(|interval| interval.low));
        values.put(high, ends.map(|interval| interval.high));
    }
}

fn activity(
    values: &mut Values,
    trades: &Trades<'_>,
    closed: &[usize],
    account: &Account<'_>,
    bars: &Bars<'_>,
) {
    let count = closed.len() as f64;
    let held = bars_held(trades, bars);
    values.put(
        "exposure",
        divide(held as f64, bars.start.len() as f64, NO_BARS),
    );
    let sessions = account.daily_equity.len() as f64;
    values.put(
        "trades_per_week",
        divide(count * DAYS_PER_WEEK, sessions, NO_SESSIONS),
    );
    let minutes = closed.iter().map(|row| {
        trades.exit_time[*row].saturating_sub(trades.entry_time[*row]) as f64 / MINUTE_NS
    });
    values.put(
        "mean_holding_minutes",
        divide(sum(minutes), count, NO_TRADES),
    );
    let ambiguous = closed.iter().filter(|row| trades.ambiguous[**row]).count();
    values.count("ambiguous_exits", ambiguous);
    values.put(
        "ambiguous_share",
        divide(ambiguous as f64, count, NO_TRADES),
    );
    values.count(
        "modal_tied",
        closed.iter().filter(|row| trades.modal_tied[**row]).count(),
    );
}

/// Returns how many bars lie in the union of the holding times.
fn bars_held(trades: &Trades<'_>, bars: &Bars<'_>) -> usize {
    let mut spans: Vec<(i64, i64)> = trades
        .entry_time
        .iter()
        .copied()
        .zip(trades.exit_time.iter().copied())
        .collect();
    spans.sort_unstable();
    let mut counted = 0;
    let mut held = 0;
    for (entry, exit) in spans {
        let ended = |start: &i64| start.saturating_add(bars.interval_ns) <= entry;
        let first = bars.start.partition_point(ended).max(counted);
        let end = bars.start.partition_point(|start| *start < exit);
        if end > first {
            held += end - first;
            counted = end;
        }
    }
    held
}

/// Returns the test of the mean trade, and the number of trade dates it draws from.
fn test_mean(
    trades: &Trades<'_>,
    closed: &[usize],
    draws: Draws,
) -> (Option<bootstrap::MeanTest>, usize) {
    let mut dates: BTreeMap<i32, (f64, u32)> = BTreeMap::new();
    for row in closed {
        let date = dates.entry(trades.trade_date[*row]).or_default();
        date.0 += trades.net[*row];
        date.1 += 1;
    }
    let (sums, counts): (Vec<f64>, Vec<u32>) = dates.into_values().unzip();
    (bootstrap::mean_test(&sums, &counts, draws), sums.len())
}

fn verdict(test: Option<bootstrap::MeanTest>, trades: usize, dates: usize) -> String {
    if trades < VERDICT_TRADES {
        return format!("No verdict: fewer than {VERDICT_TRADES} trades ({trades}).");
    }
    let Some(test) = test.filter(|_| dates >= VERDICT_DATES) else {
        return format!(
            "No verdict: the {trades} trades fall on fewer than {VERDICT_DATES} trade dates ({dates})."
        );
    };
    let p_value = if test.p_value < 0.001 {
        "p < 0.001".to_owned()
    } else {
        format!("p = {:.3}", test.p_value)
    };
    let evidence = format!(
        "{p_value}, 95 % interval {:+.2} to {:+.2} USD over {trades} trades on {dates} trade dates",
        test.interval.low, test.interval.high
    );
    let mean = format!("The mean trade of {:+.2} USD", test.mean);
    if test.p_value > VERDICT_P {
        format!("{mean} cannot be told from luck: {evidence}.")
    } else if test.mean > 0.0 {
        format!(
            "{mean} can be told from luck: {evidence}. This holds for one configuration chosen \
             beforehand; every other one that was tried weakens it."
        )
    } else {
        format!("{mean} is a loss that luck does not explain: {evidence}.")
    }
}

/// The closed trades that have one key in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    /// The key.
    pub key: i64,
    /// Closed trades.
    pub trades: u64,
    /// Trades with a net result above zero.
    pub wins: u64,
    /// wins / trades.
    pub win_rate: f64,
    /// Wilson 95 % interval of the win rate.
    pub win_rate_interval: Interval,
    /// Sum of the results after costs, USD.
    pub net_usd: f64,
    /// Mean net result of a trade, USD.
    pub expectancy_usd: f64,
    /// Mean over trades of net / risk.
    pub expectancy_r: f64,
}

/// Returns the closed trades grouped by a key, ascending: direction, hour, weekday, exit reason or
/// context as the caller numbers them.
///
/// # Errors
/// When the columns or the keys differ in length.
pub fn group(trades: Trades<'_>, keys: &[i64]) -> Result<Vec<Group>, ConfigError> {
    trades.check()?;
    check_lengths(&[("net", trades.net.len()), ("keys", keys.len())])?;
    let mut rows: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for row in trades.closed() {
        rows.entry(keys[row]).or_default().push(row);
    }
    let groups = rows.into_iter().filter_map(|(key, rows)| {
        let count = rows.len() as f64;
        let wins = rows.iter().filter(|row| trades.net[**row] > 0.0).count() as u64;
        let net = sum(rows.iter().map(|row| trades.net[*row]));
        let in_risk = sum(rows
            .iter()
            .map(|row| trades.net[*row] / trades.risk_usd[*row]));
        Some(Group {
            key,
            trades: rows.len() as u64,
            wins,
            win_rate: wins as f64 / count,
            win_rate_interval: wilson(wins, rows.len() as u64)?,
            net_usd: net,
            expectancy_usd: net / count,
            expectancy_r: in_risk / count,
        })
    });
    Ok(groups.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAWS: Draws = Draws {
        seed: 1,
        resamples: 2_000,
        block_days: 5,
    };
    const MINUTE: i64 = 60_000_000_000;
    const DAY: i64 = 1_440 * MINUTE;

    /// Trades with a risk of 100 USD, a stop of 2 points, ten minutes each, one a trade date.
    struct Table {
        net: Vec<f64>,
        gross: Vec<f64>,
        hundred: Vec<f64>,
        two: Vec<f64>,
        ten: Vec<f64>,
        entry: Vec<i64>,
        exit: Vec<i64>,
        date: Vec<i32>,
        open: Vec<bool>,
        odd: Vec<bool>,
    }

    impl Table {
        fn new(net: &[f64]) -> Self {
            let rows = net.len();
            Self {
                net: net.to_vec(),
                gross: net.iter().map(|net| net + 10.0).collect(),
                hundred: vec![100.0; rows],
                two: vec![2.0; rows],
                ten: vec![10.0; rows],
                entry: (0..rows as i64).map(|row| row * DAY).collect(),
                exit: (0..rows as i64)
                    .map(|row| row * DAY + 10 * MINUTE)
                    .collect(),
                date: (0..rows as i32).collect(),
                open: vec![false; rows],
                odd: (0..rows).map(|row| row % 2 == 1).collect(),
            }
        }

        fn trades(&self) -> Trades<'_> {
            Trades {
                net: &self.net,
                gross: &self.gross,
                costs: &self.ten,
                returns: &self.two,
                risk_usd: &self.hundred,
                stop_points: &self.two,
                points: &self.ten,
                mae_points: &self.two,
                mfe_points: &self.ten,
                entry_time: &self.entry,
                exit_time: &self.exit,
                trade_date: &self.date,
                open: &self.open,
                ambiguous: &self.odd,
                modal_tied: &self.odd,
            }
        }
    }

    const EMPTY: Account<'static> = Account {
        balance: 1_000.0,
        daily_equity: &[],
        mark_time: &[],
        mark_equity: &[],
    };
    const NO_TAPE: Bars<'static> = Bars {
        start: &[],
        interval_ns: MINUTE,
    };

    fn value(found: &Statistics, name: &str) -> Option<f64> {
        found
            .list
            .iter()
            .find(|statistic| statistic.name == name)
            .unwrap()
            .value
    }

    #[track_caller]
    fn same(found: &Statistics, name: &str, expected: f64) {
        let value = value(found, name).unwrap();
        assert!(
            (value - expected).abs() < 1e-9,
            "{name}: {value} {expected}"
        );
    }

    #[test]
    fn five_trades_by_hand() {
        let mut table = Table::new(&[50.0, 30.0, -20.0, 0.0, 40.0, 1e6]);
        table.open[5] = true;
        let found = compute(table.trades(), EMPTY, NO_TAPE, DRAWS).unwrap();
        for (name, expected) in [
            ("trades", 5.0),
            ("open_trades", 1.0),
            ("wins", 3.0),
            ("losses", 2.0),
            ("win_rate", 0.6),
            ("net_usd", 100.0),
            ("gross_usd", 150.0),
            ("costs_usd", 50.0),
            ("expectancy_usd", 20.0),
            ("expectancy_points", 10.0),
            ("expectancy_r", 0.2),
            ("mean_return_pct", 200.0),
            ("gross_profit_usd", 120.0),
            ("gross_loss_usd", 20.0),
            ("profit_factor", 6.0),
            ("average_win_usd", 40.0),
            ("average_loss_usd", -10.0),
            ("payoff", 4.0),
            ("largest_win_usd", 50.0),
            ("largest_loss_usd", -20.0),
            ("longest_winning_streak", 2.0),
            ("longest_losing_streak", 2.0),
            ("mean_mae_points", 2.0),
            ("mean_mfe_points", 10.0),
            ("mean_mae_r", 1.0),
            ("mean_mfe_r", 5.0),
            ("mean_holding_minutes", 10.0),
            ("ambiguous_exits", 2.0),
            ("ambiguous_share", 0.4),
            ("modal_tied", 2.0),
        ] {
            same(&found, name, expected);
        }
        assert_eq!(found.verdict, "No verdict: fewer than 30 trades (5).");
    }

    #[test]
    fn every_definition_has_its_value_in_order_and_every_gap_its_reason() {
        let table = Table::new(&[]);
        let found = compute(table.trades(), EMPTY, NO_TAPE, DRAWS).unwrap();
        assert_eq!(found.list.len(), DEFINITIONS.len());
        for (statistic, entry) in found.list.iter().zip(DEFINITIONS) {
            assert_eq!(statistic.name, entry.name);
            assert_ne!(
                statistic.value.is_some(),
                statistic.reason.is_some(),
                "{}",
                entry.name
            );
            assert!(entry.definition.ends_with('.'), "{}", entry.name);
        }
        assert_eq!(value(&found, "profit_factor"), None);
        assert_eq!(value(&found, "win_rate"), None);
        let mut names: Vec<&str> = DEFINITIONS.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DEFINITIONS.len());
    }

    #[test]
    fn a_factor_without_losses_is_not_a_number() {
        let found = compute(Table::new(&[5.0, 7.0]).trades(), EMPTY, NO_TAPE, DRAWS).unwrap();
        let factor = found
            .list
            .iter()
            .find(|entry| entry.name == "profit_factor")
            .unwrap();
        assert_eq!((factor.value, factor.reason), (None, Some(NO_LOSSES)));
        assert_eq!(value(&found, "payoff"), None);
        same(&found, "gross_loss_usd", 0.0);
        let found = compute(Table::new(&[-5.0]).trades(), EMPTY, NO_TAPE, DRAWS).unwrap();
        same(&found, "profit_factor", 0.0);
        assert_eq!(value(&found, "average_win_usd"), None);
        assert_eq!(value(&found, "p_value"), None);
    }

    /// Balance 1000; marks a day apart. The deepest fall in money is not the deepest in percent.
    #[test]
    fn drawdown_by_hand() {
        let times: Vec<i64> = (0..8).map(|day| day * DAY).collect();
        let equity = [
            900.0, 950.0, 1_000.0, 2_000.0, 1_850.0, 1_900.0, 1_880.0, 1_990.0,
        ];
        let found = drawdown(1_000.0, &times, &equity).unwrap();
        assert_eq!(
            found,
            Drawdown {
                usd: 150.0,
                share: 0.1,
                days: 4.0,
                marks: 4
            }
        );
        // Back at the peak, the stretch reaches to the mark that is as high again.
        let found = drawdown(1_000.0, &times[..3], &equity[..3]).unwrap();
        assert_eq!((found.days, found.marks), (2.0, 2));
        let rising = drawdown(1_000.0, &times[..2], &[1_000.0, 1_100.0]).unwrap();
        assert_eq!(rising, Drawdown::default());
        assert_eq!(drawdown(1_000.0, &[], &[]), None);
    }

    #[test]
    fn daily_ratios_by_hand() {
        let table = Table::new(&[]);
        let equity = [1_010.0, 1_010.0, 989.8];
        let account = Account {
            daily_equity: &equity,
            ..EMPTY
        };
        let found = compute(table.trades(), account, NO_TAPE, DRAWS).unwrap();
        // Returns 0.01, 0, -0.02: mean -0.01 / 3, squares around it sum to 0.0005 - 0.0001 / 3.
        let mean = -0.01 / 3.0;
        let deviation = ((0.0005 - 0.0001 / 3.0) / 2.0_f64).sqrt();
        let year = 252.0_f64.sqrt();
        same(&found, "sharpe", mean / deviation * year);
        same(&found, "sortino", mean / (0.0004_f64 / 3.0).sqrt() * year);
        same(&found, "calmar", (libm::pow(0.9898, 84.0) - 1.0) / 0.02);
        same(&found, "return_pct", -1.02);
        same(&found, "sessions", 3.0);
        same(&found, "trades_per_week", 0.0);
    }

    #[test]
    fn ratios_say_why_they_are_missing() {
        let table = Table::new(&[]);
        let reason = |equity: &[f64]| {
            let account = Account {
                daily_equity: equity,
                ..EMPTY
            };
            let found = compute(table.trades(), account, NO_TAPE, DRAWS).unwrap();
            found
                .list
                .iter()
                .find(|entry| entry.name == "sharpe")
                .unwrap()
                .reason
        };
        assert_eq!(reason(&[1_000.0]), Some(FEW_SESSIONS));
        assert_eq!(reason(&[1_000.0, 1_000.0]), Some(STEADY));
        assert_eq!(reason(&[1_000.0, -5.0]), Some(RUINED));
        assert_eq!(reason(&[1_000.0, 1_010.0]), None);
    }

    #[test]
    fn exposure_counts_a_bar_once() {
        let mut table = Table::new(&[1.0, 2.0, 3.0, 4.0]);
        // Bars 0..100 a minute each: held 10..20, 15..25, 18..19 and, at an open, 50..50.
        table.entry = [10, 15, 18, 50].map(|minute| minute * MINUTE).to_vec();
        table.exit = [20, 25, 19, 50].map(|minute| minute * MINUTE).to_vec();
        let start: Vec<i64> = (0..100).map(|minute| minute * MINUTE).collect();
        let bars = Bars {
            start: &start,
            interval_ns: MINUTE,
        };
        let found = compute(table.trades(), EMPTY, bars, DRAWS).unwrap();
        same(&found, "exposure", 0.15);
    }

    #[test]
    fn wilson_by_hand() {
        // n = 1, z^2 = 3.8415: the interval of one success is 1 / (1 + z^2) to 1.
        let ends = wilson(1, 1).unwrap();
        assert!((ends.low - 1.0 / (1.0 + NORMAL_975 * NORMAL_975)).abs() < 1e-12);
        assert_eq!(ends.high, 1.0);
        assert_eq!(wilson(0, 3).unwrap().low, 0.0);
        assert_eq!(wilson(0, 0), None);
    }

    #[test]
    fn the_verdict_says_no_yes_and_nothing() {
        let verdict = |net: &[f64]| {
            compute(Table::new(net).trades(), EMPTY, NO_TAPE, DRAWS)
                .unwrap()
                .verdict
        };
        let even: Vec<f64> = (0..60)
            .map(|i| if i % 2 == 0 { 100.0 } else { -95.0 })
            .collect();
        let text = verdict(&even);
        assert!(text.starts_with("The mean trade of +2.50 USD cannot be told from luck: p = 0."));
        assert!(
            text.ends_with(" USD over 60 trades on 60 trade dates."),
            "{text}"
        );
        let good: Vec<f64> = (0..60)
            .map(|i| if i % 5 == 0 { -50.0 } else { 60.0 })
            .collect();
        assert!(
            verdict(&good).starts_with("The mean trade of +38.00 USD can be told from luck: p")
        );
        let bad: Vec<f64> = good.iter().map(|net| -net).collect();
        assert!(verdict(&bad).starts_with("The mean trade of -38.00 USD is a loss that luck"));
        let mut crowded = Table::new(&good);
        crowded.date = (0..60).map(|row| row % 3).collect();
        let found = compute(crowded.trades(), EMPTY, NO_TAPE, DRAWS).unwrap();
        assert!(
            found
                .verdict
                .starts_with("No verdict: the 60 trades fall on fewer than 10")
        );
    }

    #[test]
    fn groups_by_hand() {
        let mut table = Table::new(&[50.0, -30.0, 20.0, 9.0]);
        table.open[3] = true;
        let groups = group(table.trades(), &[1, -1, 1, 7]).unwrap();
        assert_eq!(groups.len(), 2);
        let short = groups[0];
        assert_eq!(
            (short.key, short.trades, short.wins, short.net_usd),
            (-1, 1, 0, -30.0)
        );
        let long = groups[1];
        assert_eq!(
            (long.key, long.trades, long.wins, long.win_rate),
            (1, 2, 2, 1.0)
        );
        assert_eq!(
            (long.net_usd, long.expectancy_usd, long.expectancy_r),
            (70.0, 35.0, 0.35)
        );
        assert_eq!(long.win_rate_interval, wilson(2, 2).unwrap());
        assert_eq!(group(table.trades(), &[1]).unwrap_err().field, "keys");
    }

    #[test]
    fn columns_of_different_length_are_refused() {
        let mut table = Table::new(&[1.0, 2.0]);
        table.gross.pop();
        let error = compute(table.trades(), EMPTY, NO_TAPE, DRAWS).unwrap_err();
        assert_eq!((error.field.as_str(), error.found.as_str()), ("gross", "1"));
    }
}
