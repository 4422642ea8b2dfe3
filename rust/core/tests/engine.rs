//! The engine from outside: any cut of the bars gives the same events, and the future changes none.

use clustercore_core::config::{Config, FIELDS, Kind, Value};
use clustercore_core::engine::{Columns, Engine, Step};
use clustercore_core::error::Error;
use clustercore_core::instrument::Instrument;
use clustercore_core::record::{Event, Frames};
use clustercore_core::replay::{Caused, LogRows};
use clustercore_core::session::{Interval, Session, Sessions};
use proptest::prelude::*;

const MINUTE: i64 = 60_000_000_000;
const TICK: i64 = 250_000_000;
const SESSION_BARS: i64 = 120;

/// A complete configuration: the given settings, and for every other the first choice or the
/// smallest value that its range allows.
fn config(settings: &[(&str, &str, Value)]) -> Config {
    let mut sections: Vec<(String, Vec<(String, Value)>)> = Vec::new();
    for field in FIELDS {
        let given = settings
            .iter()
            .find(|(section, name, _)| *section == field.section && *name == field.name);
        let value = match (given, field.kind) {
            (Some((_, _, value)), _) => value.clone(),
            _ if field.optional => Value::Null,
            (_, Kind::Bool) => Value::Bool(false),
            (_, Kind::Int) => Value::Int(field.min as i64),
            (_, Kind::Float) => Value::Float(field.min),
            (_, Kind::Choice) => Value::Text(field.choices[0].to_owned()),
            (_, Kind::Distance) => Value::Text("4 ticks".to_owned()),
            (_, Kind::Texts | Kind::Legs) => Value::List(vec![]),
        };
        match sections.iter_mut().find(|(name, _)| name == field.section) {
            Some((_, entries)) => entries.push((field.name.to_owned(), value)),
            None => sections.push((
                field.section.to_owned(),
                vec![(field.name.to_owned(), value)],
            )),
        }
    }
    Config::new(&sections).expect("a complete configuration")
}

/// Five-minute windows against the session so far, shorts on, thresholds low: trades happen. The
/// profiles are made of what `profiles` says.
fn lively(profiles: &str) -> Config {
    let text = |word: &str| Value::Text(word.to_owned());
    config(&[
        ("baseline", "mode", text("session_to_date")),
        ("baseline", "min_bars", Value::Int(10)),
        ("cluster", "minutes", Value::Int(5)),
        ("cluster", "basis", text("window")),
        ("cluster", "threshold", Value::Float(1.05)),
        ("rank", "top_n", Value::Int(100)),
        ("profile", "start_minute", Value::Int(0)),
        ("profile", "end_minute", Value::Int(5)),
        ("profile", "source", text(profiles)),
        ("momentum", "start_minute", Value::Int(-5)),
        ("momentum", "end_minute", Value::Int(0)),
        ("signal", "long_threshold", Value::Float(0.45)),
        ("signal", "short_threshold", Value::Float(0.55)),
        ("signal", "shorts", Value::Bool(true)),
        ("signal", "w_position", Value::Float(0.7)),
        ("retest", "enabled", Value::Bool(true)),
        ("retest", "test", text("touch")),
        ("retest", "timeout_minutes", Value::Int(30)),
        ("entry", "max_wait_minutes", Value::Int(5)),
        ("volatility", "minutes", Value::Int(480)),
        ("volatility", "min_minutes", Value::Int(20)),
        ("volatility", "atr_minutes", Value::Int(240)),
        ("volatility", "atr_min_minutes", Value::Int(10)),
        ("stop", "k", Value::Float(1.0)),
        ("target", "reward", Value::Float(1.5)),
        ("exit", "max_hold_minutes", Value::Int(20)),
        ("exit", "flatten_minutes", Value::Int(1)),
        ("account", "balance", Value::Float(50_000.0)),
        ("size", "base", Value::Float(1.0)),
        ("size", "max_contracts", Value::Int(3)),
    ])
}

fn engine() -> Engine {
    engine_with(lively("close_volume"))
}

fn engine_with(config: Config) -> Engine {
    let sessions = (0..4)
        .map(|day| {
            let open = day * 24 * 60 * MINUTE;
            let close = open + SESSION_BARS * MINUTE;
            Session {
                trade_date: day as i32,
                open,
                close,
                hours: vec![Interval {
                    start: open,
                    end: close,
                }],
                halts: vec![],
                new_york_offset_s: -18_000,
            }
        })
        .collect();
    let instrument = Instrument {
        root: "ES".to_owned(),
        tick_nanos: TICK,
        point_value: 50.0,
        commission: 2.5,
        margin: None,
    };
    let sessions = Sessions::new(sessions).expect("ascending sessions");
    let mut engine =
        Engine::new(config, "id".to_owned(), instrument, sessions, MINUTE).expect("an engine");
    engine.symbol("ESZ5");
    engine.symbol("ESH6");
    engine
}

/// Turns small numbers into coherent bars on the tick grid, three sessions of them.
fn steps(moves: &[(i8, u8, u8, u16, bool)]) -> Vec<Step> {
    let mut price = 4000 * 4;
    let mut steps = Vec::new();
    for (place, (change, up, down, volume, present)) in (0_i64..).zip(moves) {
        let open = price;
        price += i64::from(*change);
        let (high, low) = (
            open.max(price) + i64::from(*up),
            open.min(price) - i64::from(*down),
        );
        let start = (place / SESSION_BARS) * 24 * 60 * MINUTE + (place % SESSION_BARS) * MINUTE;
        let bar = clustercore_core::bar::BarInput {
            start,
            open: open * TICK,
            high: high * TICK,
            low: low * TICK,
            close: price * TICK,
            volume: i64::from(*volume),
        };
        if *present {
            steps.push(Step {
                bar,
                symbol: 0,
                actionable: true,
                context: false,
            });
        }
    }
    steps
}

fn step_all(engine: &mut Engine, steps: &[Step]) -> Vec<Event> {
    let mut events = Vec::new();
    for step in steps {
        engine.step(step, &mut events).expect("a coherent bar");
    }
    events
}

fn run_all(engine: &mut Engine, steps: &[Step], frames: &mut Frames) {
    let column = |of: fn(&Step) -> i64| steps.iter().map(of).collect::<Vec<_>>();
    engine
        .run(
            &Columns {
                start: &column(|step| step.bar.start),
                open: &column(|step| step.bar.open),
                high: &column(|step| step.bar.high),
                low: &column(|step| step.bar.low),
                close: &column(|step| step.bar.close),
                volume: &column(|step| step.bar.volume),
                stretches: &[(0, 0)],
                context: None,
                actionable: None,
            },
            frames,
            || false,
        )
        .expect("coherent bars");
}

fn sorted(events: Vec<Event>) -> Frames {
    let mut frames = Frames::default();
    for event in events {
        clustercore_core::record::Sink::take(&mut frames, event);
    }
    frames
}

fn assert_same(left: &Frames, right: &Frames) {
    assert_eq!(left.clusters, right.clusters);
    assert_eq!(left.signals, right.signals);
    assert_eq!(left.orders, right.orders);
    assert_eq!(left.trades, right.trades);
    assert_eq!(left.equity, right.equity);
    assert_eq!(left.risk, right.risk);
}

fn market() -> impl Strategy<Value = Vec<Step>> {
    let bar = (
        -6_i8..=6,
        0_u8..4,
        0_u8..4,
        0_u16..400,
        proptest::bool::weighted(0.95),
    );
    proptest::collection::vec(bar, 3 * SESSION_BARS as usize).prop_map(|moves| steps(&moves))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_any_cut_gives_the_same_frames(steps in market(), cut in 0.0..1.0_f64) {
        let whole = sorted(step_all(&mut engine(), &steps));
        let place = (cut * steps.len() as f64) as usize;
        let mut cut_engine = engine();
        let mut frames = Frames::default();
        run_all(&mut cut_engine, &steps[..place], &mut frames);
        run_all(&mut cut_engine, &steps[place..], &mut frames);
        assert_same(&whole, &frames);
    }

    #[test]
    fn prop_the_future_changes_nothing(steps in market(), cut in 0.0..1.0_f64) {
        let place = (cut * steps.len() as f64) as usize;
        let whole = step_all(&mut engine(), &steps);
        let part = step_all(&mut engine(), &steps[..place]);
        prop_assert_eq!(&whole[..part.len()], &part[..]);
    }

    #[test]
    fn prop_closing_intervals_changes_nothing(steps in market()) {
        let mut quiet = engine();
        let mut silent = step_all(&mut quiet, &steps);
        // A bar without volume moves no time, so only a word closes the last intervals of both.
        quiet.advance(4 * 24 * 60 * MINUTE, &mut silent);
        let mut told = engine();
        let mut events = Vec::new();
        for step in &steps {
            told.advance(step.bar.start, &mut events);
            told.step(step, &mut events).expect("a coherent bar");
            told.advance(step.bar.start + MINUTE, &mut events);
        }
        told.advance(4 * 24 * 60 * MINUTE, &mut events);
        prop_assert_eq!(silent, events);
    }
}

#[test]
fn lively_markets_trade() {
    // The properties above would hold of an engine that never trades; this one does.
    let moves: Vec<(i8, u8, u8, u16, bool)> = (0..3 * SESSION_BARS)
        .map(|k| {
            let wave = (k * 7919 % 13 - 6) as i8;
            (
                wave,
                (k % 3) as u8,
                (k % 4) as u8,
                (50 + k * 31 % 300) as u16,
                true,
            )
        })
        .collect();
    let frames = sorted(step_all(&mut engine(), &steps(&moves)));
    assert!(
        frames.clusters.len() >= 10,
        "{} clusters",
        frames.clusters.len()
    );
    assert!(frames.trades.len() >= 5, "{} trades", frames.trades.len());
}

#[test]
fn a_refused_bar_leaves_the_engine_as_it_was() {
    let moves: Vec<_> = (0..200)
        .map(|k| ((k % 5) as i8 - 2, 1, 1, 100 + (k % 7) as u16 * 40, true))
        .collect();
    let steps = steps(&moves);
    let mut engine_with_fault = engine();
    let mut bad = steps.clone();
    bad[150].bar.high = bad[150].bar.low - TICK;
    let mut events = Vec::new();
    for step in &steps[..100] {
        engine_with_fault
            .step(step, &mut events)
            .expect("a coherent bar");
    }
    let column = |of: fn(&Step) -> i64| bad[100..].iter().map(of).collect::<Vec<_>>();
    let refused = engine_with_fault.run(
        &Columns {
            start: &column(|step| step.bar.start),
            open: &column(|step| step.bar.open),
            high: &column(|step| step.bar.high),
            low: &column(|step| step.bar.low),
            close: &column(|step| step.bar.close),
            volume: &column(|step| step.bar.volume),
            stretches: &[(0, 0)],
            context: None,
            actionable: None,
        },
        &mut Frames::default(),
        || false,
    );
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .starts_with("row 50, column high")
    );
    for step in &steps[100..] {
        engine_with_fault
            .step(step, &mut events)
            .expect("a coherent bar");
    }
    assert_eq!(events, step_all(&mut engine(), &steps));
}

#[test]
fn an_interrupted_run_leaves_the_engine_as_it_was() {
    let moves: Vec<_> = (0..200)
        .map(|k| ((k % 5) as i8 - 2, 1, 1, 100, true))
        .collect();
    let steps = steps(&moves);
    let mut stopped = engine();
    let refused = stopped.run(
        &Columns {
            start: &steps.iter().map(|step| step.bar.start).collect::<Vec<_>>(),
            open: &steps.iter().map(|step| step.bar.open).collect::<Vec<_>>(),
            high: &steps.iter().map(|step| step.bar.high).collect::<Vec<_>>(),
            low: &steps.iter().map(|step| step.bar.low).collect::<Vec<_>>(),
            close: &steps.iter().map(|step| step.bar.close).collect::<Vec<_>>(),
            volume: &steps.iter().map(|step| step.bar.volume).collect::<Vec<_>>(),
            stretches: &[(0, 0)],
            context: None,
            actionable: None,
        },
        &mut Frames::default(),
        || true,
    );
    assert_eq!(refused.unwrap_err().to_string(), "interrupted");
    assert_eq!(
        step_all(&mut stopped, &steps),
        step_all(&mut engine(), &steps)
    );
}

/// A row of a log.
#[derive(Clone, Copy, Debug)]
enum Row {
    Bar(Step),
    Trade { time: i64, price: i64, size: i64 },
    Closed(i64),
}

/// What is said about a bar: how many trades come before it, whether it came in time, whether the
/// end of its interval is said, and by how much that is off the grid.
type Said = (u8, bool, bool, u8);

/// Returns a log of bars; the last session of them is of another contract, of which some earlier
/// bars come first that only inform.
fn log_of(steps: &[Step], said: &[Said]) -> Vec<Row> {
    let rolled = 2 * 24 * 60 * MINUTE;
    let mut rows = Vec::new();
    let mut is_before = true;
    for (step, &(trades, actionable, closes, off)) in steps.iter().zip(said) {
        let mut step = *step;
        step.actionable = actionable;
        if step.bar.start >= rolled {
            step.symbol = 1;
        }
        if is_before && step.symbol == 1 {
            is_before = false;
            let earlier = steps.iter().filter(|step| step.bar.start < rolled);
            rows.extend(earlier.take(20).map(|earlier| {
                Row::Bar(Step {
                    symbol: 1,
                    actionable: false,
                    context: true,
                    ..*earlier
                })
            }));
        }
        for place in 0..i64::from(trades) {
            rows.push(Row::Trade {
                time: step.bar.start + place * 1_000,
                price: if place % 2 == 0 {
                    step.bar.low
                } else {
                    step.bar.high
                },
                size: 1 + place,
            });
        }
        rows.push(Row::Bar(step));
        if closes {
            rows.push(Row::Closed(step.bar.start + MINUTE + i64::from(off)));
        }
    }
    rows
}

/// Takes rows one after the other, and returns what each of them caused.
fn take_one_by_one(engine: &mut Engine, rows: &[Row]) -> Vec<(usize, Event)> {
    let mut caused = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let mut events: Vec<Event> = Vec::new();
        match *row {
            Row::Bar(step) => engine.step(&step, &mut events).expect("a coherent bar"),
            Row::Trade { time, price, size } => {
                engine.trade(time, price, size).expect("a coherent trade");
            }
            Row::Closed(time) => engine.advance(time, &mut events),
        }
        caused.extend(events.into_iter().map(|event| (place, event)));
    }
    caused
}

/// Takes rows as columns; what a kind does not use holds what would be refused.
fn replay(
    engine: &mut Engine,
    rows: &[Row],
    stop: impl FnMut() -> bool,
) -> Result<Vec<(usize, Event)>, Error> {
    let (mut kinds, mut context, mut actionable) = (Vec::new(), Vec::new(), Vec::new());
    let mut numbers: [Vec<i64>; 6] = Default::default();
    let mut stretches: Vec<(usize, u32)> = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let (kind, of_row, flags) = match *row {
            Row::Bar(step) => {
                let bar = step.bar;
                let last = stretches.last().map(|stretch| stretch.1);
                if last != Some(step.symbol) {
                    let first = if last.is_none() { 0 } else { place };
                    stretches.push((first, step.symbol));
                }
                let of_bar = [
                    bar.start, bar.open, bar.high, bar.low, bar.close, bar.volume,
                ];
                (0, of_bar, (step.context, step.actionable))
            }
            Row::Trade { time, price, size } => {
                (1, [time, -1, -1, -1, price, size], (false, false))
            }
            Row::Closed(time) => (2, [time, -1, -1, -1, -1, -1], (false, false)),
        };
        kinds.push(kind);
        context.push(flags.0);
        actionable.push(flags.1);
        for (column, number) in numbers.iter_mut().zip(of_row) {
            column.push(number);
        }
    }
    if stretches.is_empty() {
        // Trades and closings alone are of no contract.
        stretches.push((0, 0));
    }
    let [start, open, high, low, close, volume] = &numbers;
    let rows = LogRows {
        kinds: &kinds,
        columns: Columns {
            start,
            open,
            high,
            low,
            close,
            volume,
            stretches: &stretches,
            context: Some(&context),
            actionable: Some(&actionable),
        },
    };
    let mut caused = Caused::default();
    engine.replay(&rows, &mut caused, stop)?;
    Ok(caused.events)
}

fn logs() -> impl Strategy<Value = Vec<Row>> {
    // A window has a profile of trades where each of its bars has some: most have.
    let trades = (0_u8..12).prop_map(|drawn| if drawn == 0 { 0 } else { 1 + drawn % 4 });
    let said = (
        trades,
        proptest::bool::weighted(0.9),
        proptest::bool::weighted(0.5),
        0_u8..2,
    );
    let said = proptest::collection::vec(said, 3 * SESSION_BARS as usize);
    (market(), said).prop_map(|(steps, said)| log_of(&steps, &said))
}

/// Returns a log that is the same on each run, with everything in it.
fn a_log() -> Vec<Row> {
    let moves: Vec<_> = (0..3 * SESSION_BARS)
        .map(|k| {
            let wave = (k * 7919 % 13 - 6) as i8;
            let volume = (50 + k * 31 % 300) as u16;
            (wave, (k % 3) as u8, (k % 4) as u8, volume, true)
        })
        .collect();
    let said: Vec<Said> = (0..moves.len())
        .map(|k| (1 + (k % 4) as u8, k % 7 != 0, k % 2 == 0, (k % 3) as u8))
        .collect();
    log_of(&steps(&moves), &said)
}

/// Engines whose profiles are made of bars, and of trades.
const PROFILES: [&str; 2] = ["close_volume", "trades"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn prop_a_log_replayed_is_its_rows_taken_one_by_one(
        rows in logs(),
        cuts in proptest::collection::vec(0.0..1.0_f64, 0..4),
        profiles in 0..PROFILES.len(),
    ) {
        let config = || lively(PROFILES[profiles]);
        let mut alone = engine_with(config());
        let one_by_one = take_one_by_one(&mut alone, &rows);
        let mut places: Vec<usize> =
            cuts.iter().map(|cut| (cut * rows.len() as f64) as usize).collect();
        places.extend([0, rows.len()]);
        places.sort_unstable();
        let mut again = engine_with(config());
        let mut replayed = Vec::new();
        for pair in places.windows(2) {
            let caused = replay(&mut again, &rows[pair[0]..pair[1]], || false).expect("a log");
            replayed.extend(caused.into_iter().map(|(row, event)| (pair[0] + row, event)));
        }
        prop_assert_eq!(one_by_one, replayed);
        prop_assert_eq!(alone.bar_counts(), again.bar_counts());
        prop_assert_eq!(alone.window_counts(), again.window_counts());
        // Whatever is said next finds the same engine.
        let end = 4 * 24 * 60 * MINUTE;
        let mut left: Vec<Event> = Vec::new();
        let mut right: Vec<Event> = Vec::new();
        alone.advance(end, &mut left);
        again.advance(end, &mut right);
        prop_assert_eq!(left, right);
        prop_assert_eq!(alone.account_state(), again.account_state());
    }
}

#[test]
fn a_log_that_is_replayed_trades() {
    // The property above would hold of logs in which nothing happens; in these it does.
    for profiles in PROFILES {
        let rows = a_log();
        let caused = replay(&mut engine_with(lively(profiles)), &rows, || false).expect("a log");
        let count = |wanted: fn(&Event) -> bool| caused.iter().filter(|(_, e)| wanted(e)).count();
        let clusters = count(|event| matches!(event, Event::Cluster(_)));
        let trades = count(|event| matches!(event, Event::Trade(_)));
        assert!(clusters >= 10, "{profiles}: {clusters} clusters");
        assert!(trades >= 5, "{profiles}: {trades} trades");
        assert!(
            rows.iter()
                .any(|row| matches!(row, Row::Bar(step) if step.context))
        );
    }
}

/// Replays the rest of a log after a wrong row of it was refused, and checks that the engine is the
/// one to which nothing happened.
fn assert_unchanged_by(wrong: impl Fn(&mut Vec<Row>), expected: &str) {
    for profiles in PROFILES {
        let rows = a_log();
        let half = rows.len() / 2;
        let mut target = engine_with(lively(profiles));
        let mut caused = replay(&mut target, &rows[..half], || false).expect("a log");
        let counts = target.bar_counts();
        let mut bad = rows[half..].to_vec();
        wrong(&mut bad);
        let refused = replay(&mut target, &bad, || false).err();
        let refused = refused.unwrap_or_else(|| panic!("nothing refused: {expected}"));
        assert!(refused.to_string().starts_with(expected), "{refused}");
        assert_eq!(target.bar_counts(), counts);
        let rest = replay(&mut target, &rows[half..], || false).expect("a log");
        caused.extend(rest.into_iter().map(|(row, event)| (half + row, event)));
        let mut alone = engine_with(lively(profiles));
        assert_eq!(caused, take_one_by_one(&mut alone, &rows));
    }
}

/// Returns the first row after the hundredth that is as wanted.
fn row_after_100(rows: &[Row], wanted: fn(&Row) -> bool) -> usize {
    let found = rows.iter().skip(100).position(wanted).expect("such a row");
    100 + found
}

#[test]
fn a_refused_bar_of_a_log_leaves_the_engine_as_it_was() {
    let rows = a_log();
    let half = &rows[rows.len() / 2..];
    let place = row_after_100(half, |row| matches!(row, Row::Bar(step) if !step.context));
    assert_unchanged_by(
        |rows| {
            if let Row::Bar(step) = &mut rows[place] {
                step.bar.high = step.bar.low - TICK;
            }
        },
        &format!("row {place}, column high"),
    );
}

#[test]
fn a_refused_trade_of_a_log_leaves_the_engine_as_it_was() {
    let rows = a_log();
    let half = &rows[rows.len() / 2..];
    let place = row_after_100(half, |row| matches!(row, Row::Trade { .. }));
    let start_of = |row: &Row| match row {
        Row::Bar(step) => Some(step.bar.start),
        _ => None,
    };
    let long_taken = rows.iter().find_map(start_of).expect("a bar");
    for column in ["price", "size", "ts_event"] {
        assert_unchanged_by(
            |rows| {
                if let Row::Trade { time, price, size } = &mut rows[place] {
                    match column {
                        "price" => *price = 0,
                        "size" => *size = 0,
                        _ => *time = long_taken,
                    }
                }
            },
            &format!("row {place}, column {column}"),
        );
    }
}

#[test]
fn an_interrupted_replay_leaves_the_engine_as_it_was() {
    let rows = a_log();
    let mut stopped = engine_with(lively("trades"));
    let refused = replay(&mut stopped, &rows, || true);
    assert_eq!(refused.unwrap_err().to_string(), "interrupted");
    let caused = replay(&mut stopped, &rows, || false).expect("a log");
    let mut alone = engine_with(lively("trades"));
    assert_eq!(caused, take_one_by_one(&mut alone, &rows));
}

#[test]
fn rows_of_no_kind_and_columns_that_differ_in_length_are_refused() {
    let (kinds, numbers) = ([0_u8, 3], [MINUTE, 2 * MINUTE]);
    let prices = [4000 * TICK; 2];
    let columns = Columns {
        start: &numbers,
        open: &prices,
        high: &prices,
        low: &prices,
        close: &prices,
        volume: &[1, 1],
        stretches: &[(0, 0)],
        context: None,
        actionable: None,
    };
    let mut target = engine();
    let mut refused = |kinds: &[u8], columns: Columns| {
        let rows = LogRows { kinds, columns };
        let caused = target.replay(&rows, &mut Caused::default(), || false);
        caused.expect_err("no log").to_string()
    };
    assert!(refused(&kinds, columns).starts_with("row 1, column kind: no such kind of row"));
    assert!(refused(&kinds[..1], columns).starts_with("row 1, column kind: columns differ"));
    let short = Columns {
        open: &prices[..1],
        ..columns
    };
    assert!(refused(&[0, 2], short).starts_with("row 1, column open: columns differ"));
    // The good row before the bad one left no trace.
    assert_eq!(target.bar_counts(), engine().bar_counts());
    assert_eq!(target.waiting(), (0, 0, 0));
}
