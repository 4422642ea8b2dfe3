//! The engine as a Python class.

use std::sync::{Mutex, MutexGuard, TryLockError};

use clustercore_core::bar::BarInput;
use clustercore_core::engine::{Columns, Engine, Step};
use clustercore_core::error::Error;
use clustercore_core::instrument::Instrument;
use clustercore_core::record::{Event, Frames};
use clustercore_core::replay::{Caused, LogRows};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::config::read_config;
use crate::errors::{exceptions, guarded, raise};
use crate::frames::{to_columns, to_event};
use crate::sessions::{read_sessions, read_table};

struct Inner {
    engine: Engine,
    events: Vec<Event>,
    symbol: u32,
    /// After a fault inside the engine nothing but `reset` is accepted.
    faulty: bool,
}

/// The volume-cluster engine: one state machine for backtest and live.
///
/// Prices are int64 in 1e-9 points, times int64 nanoseconds UTC.
#[pyclass(frozen, name = "Engine", module = "clustercore._core")]
pub(crate) struct PyEngine {
    inner: Mutex<Inner>,
}

impl PyEngine {
    fn lock(&self) -> PyResult<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(inner),
            Err(TryLockError::WouldBlock) => Err(exceptions::EngineBusy::new_err(
                "another thread is using this engine",
            )),
            Err(TryLockError::Poisoned(poisoned)) => {
                let mut inner = poisoned.into_inner();
                inner.faulty = true;
                Ok(inner)
            }
        }
    }

    fn ready(&self) -> PyResult<MutexGuard<'_, Inner>> {
        let inner = self.lock()?;
        if inner.faulty {
            return Err(exceptions::InternalError::new_err(
                "the engine had a fault; call reset() and feed it again",
            ));
        }
        Ok(inner)
    }
}

impl Inner {
    /// Runs a function of the engine; after a panic the engine refuses work.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> PyResult<T> {
        let done = guarded(|| work(self));
        self.faulty |= done.is_err();
        done
    }

    fn take_events<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for event in self.events.drain(..) {
            list.append(to_event(py, &event, self.engine.symbols())?)?;
        }
        Ok(list)
    }

    /// Returns what the engine says of its state as it stands.
    fn tell<'py>(
        &mut self,
        py: Python<'py>,
        say: impl FnOnce(&Engine, &mut Vec<Event>),
    ) -> PyResult<Bound<'py, PyList>> {
        let mut events = Vec::new();
        self.guarded(|inner| say(&inner.engine, &mut events))?;
        let symbols = self.engine.symbols();
        let rows = events.iter().map(|event| to_event(py, event, symbols));
        PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
    }
}

#[pymethods]
impl PyEngine {
    #[new]
    #[pyo3(signature = (config, config_id, instrument, sessions, interval_ns))]
    fn new(
        config: &Bound<'_, PyDict>,
        config_id: String,
        instrument: &Bound<'_, PyDict>,
        sessions: &Bound<'_, PyDict>,
        interval_ns: i64,
    ) -> PyResult<Self> {
        let py = config.py();
        let config = read_config(config)?;
        let instrument = read_instrument(instrument)?;
        let root = instrument.root.clone();
        let table = read_table(sessions)?;
        let engine = guarded(|| Engine::new(config, config_id, instrument, table, interval_ns))?;
        let mut engine = engine.map_err(|error| raise(py, &error))?;
        let symbol = engine.symbol(&root);
        let inner = Inner {
            engine,
            events: Vec::new(),
            symbol,
            faulty: false,
        };
        Ok(Self {
            inner: Mutex::new(inner),
        })
    }

    /// Takes one bar and returns its events.
    #[pyo3(signature = (ts_event, open, high, low, close, volume, actionable = true, context = false, symbol = None))]
    #[allow(clippy::too_many_arguments)]
    fn step<'py>(
        &self,
        py: Python<'py>,
        ts_event: i64,
        open: i64,
        high: i64,
        low: i64,
        close: i64,
        volume: i64,
        actionable: bool,
        context: bool,
        symbol: Option<&str>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut inner = self.ready()?;
        let symbol = symbol.map_or(inner.symbol, |symbol| inner.engine.symbol(symbol));
        let bar = BarInput {
            start: ts_event,
            open,
            high,
            low,
            close,
            volume,
        };
        let step = Step {
            bar,
            symbol,
            actionable,
            context,
        };
        inner
            .guarded(|inner| inner.engine.step(&step, &mut inner.events))?
            .map_err(|error| raise(py, &error))?;
        inner.symbol = symbol;
        inner.take_events(py)
    }

    /// Takes many bars and returns the frames of what they caused.
    #[pyo3(signature = (ts_event, open, high, low, close, volume, symbols, context = None, actionable = None, finish = false))]
    #[allow(clippy::too_many_arguments)]
    fn run<'py>(
        &self,
        py: Python<'py>,
        ts_event: PyReadonlyArray1<'py, i64>,
        open: PyReadonlyArray1<'py, i64>,
        high: PyReadonlyArray1<'py, i64>,
        low: PyReadonlyArray1<'py, i64>,
        close: PyReadonlyArray1<'py, i64>,
        volume: PyReadonlyArray1<'py, i64>,
        symbols: Vec<(usize, String)>,
        context: Option<PyReadonlyArray1<'py, bool>>,
        actionable: Option<PyReadonlyArray1<'py, bool>>,
        finish: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let mut inner = self.ready()?;
        let stretches: Vec<(usize, u32)> = symbols
            .iter()
            .map(|(row, symbol)| (*row, inner.engine.symbol(symbol)))
            .collect();
        let columns = Columns {
            start: ts_event.as_slice()?,
            open: open.as_slice()?,
            high: high.as_slice()?,
            low: low.as_slice()?,
            close: close.as_slice()?,
            volume: volume.as_slice()?,
            stretches: &stretches,
            context: context
                .as_ref()
                .map(PyReadonlyArray1::as_slice)
                .transpose()?,
            actionable: actionable
                .as_ref()
                .map(PyReadonlyArray1::as_slice)
                .transpose()?,
        };
        let mut frames = Frames::default();
        let mut interrupt = None;
        let held: &mut Inner = &mut inner;
        let done = py.detach(|| {
            held.guarded(|inner| {
                inner.engine.run(&columns, &mut frames, || {
                    interrupt = Python::attach(|py| py.check_signals()).err();
                    interrupt.is_some()
                })
            })
        })?;
        match (done, interrupt) {
            (Err(Error::Interrupted), Some(interrupt)) => return Err(interrupt),
            (Err(error), _) => return Err(raise(py, &error)),
            (Ok(()), _) => {}
        }
        if let Some((_, symbol)) = stretches.last() {
            inner.symbol = *symbol;
        }
        if finish {
            inner.guarded(|inner| inner.engine.finish(&mut frames))?;
        }
        to_columns(py, &frames, inner.engine.symbols())
    }

    /// Takes the rows of a log again and returns what they caused: the row and its events.
    #[pyo3(signature = (kind, ts, open, high, low, close, volume, symbols, context, actionable))]
    #[allow(clippy::too_many_arguments)]
    fn replay<'py>(
        &self,
        py: Python<'py>,
        kind: PyReadonlyArray1<'py, u8>,
        ts: PyReadonlyArray1<'py, i64>,
        open: PyReadonlyArray1<'py, i64>,
        high: PyReadonlyArray1<'py, i64>,
        low: PyReadonlyArray1<'py, i64>,
        close: PyReadonlyArray1<'py, i64>,
        volume: PyReadonlyArray1<'py, i64>,
        symbols: Vec<(usize, String)>,
        context: PyReadonlyArray1<'py, bool>,
        actionable: PyReadonlyArray1<'py, bool>,
    ) -> PyResult<Bound<'py, PyList>> {
        let mut inner = self.ready()?;
        let stretches: Vec<(usize, u32)> = symbols
            .iter()
            .map(|(row, symbol)| (*row, inner.engine.symbol(symbol)))
            .collect();
        let rows = LogRows {
            kinds: kind.as_slice()?,
            columns: Columns {
                start: ts.as_slice()?,
                open: open.as_slice()?,
                high: high.as_slice()?,
                low: low.as_slice()?,
                close: close.as_slice()?,
                volume: volume.as_slice()?,
                stretches: &stretches,
                context: Some(context.as_slice()?),
                actionable: Some(actionable.as_slice()?),
            },
        };
        let mut caused = Caused::default();
        let mut interrupt = None;
        let held: &mut Inner = &mut inner;
        let done = py.detach(|| {
            held.guarded(|inner| {
                inner.engine.replay(&rows, &mut caused, || {
                    interrupt = Python::attach(|py| py.check_signals()).err();
                    interrupt.is_some()
                })
            })
        })?;
        match (done, interrupt) {
            (Err(Error::Interrupted), Some(interrupt)) => return Err(interrupt),
            (Err(error), _) => return Err(raise(py, &error)),
            (Ok(()), _) => {}
        }
        if let Some((_, symbol)) = stretches.last() {
            inner.symbol = *symbol;
        }
        let symbols = inner.engine.symbols();
        let list = PyList::empty(py);
        for of_row in caused.events.chunk_by(|one, next| one.0 == next.0) {
            let events = of_row.iter().map(|(_, event)| to_event(py, event, symbols));
            let events = PyTuple::new(py, events.collect::<PyResult<Vec<_>>>()?)?;
            list.append((of_row[0].0, events))?;
        }
        Ok(list)
    }

    /// Takes many trades, all or none; they come before the bar that holds them.
    fn trades(
        &self,
        py: Python<'_>,
        ts: PyReadonlyArray1<'_, i64>,
        price: PyReadonlyArray1<'_, i64>,
        size: PyReadonlyArray1<'_, i64>,
    ) -> PyResult<()> {
        let mut inner = self.ready()?;
        let (ts, price, size) = (ts.as_slice()?, price.as_slice()?, size.as_slice()?);
        inner
            .guarded(|inner| inner.engine.trades(ts, price, size))?
            .map_err(|error| raise(py, &error))
    }

    /// Takes a trade, which comes before the bar that holds it.
    fn trade(&self, py: Python<'_>, ts: i64, price: i64, size: i64) -> PyResult<()> {
        let mut inner = self.ready()?;
        inner
            .guarded(|inner| inner.engine.trade(ts, price, size))?
            .map_err(|error| raise(py, &error))
    }

    /// Says that every interval that ends at or before `ts` is closed, and returns what that caused.
    fn advance<'py>(&self, py: Python<'py>, ts: i64) -> PyResult<Bound<'py, PyList>> {
        let mut inner = self.ready()?;
        inner.guarded(|inner| inner.engine.advance(ts, &mut inner.events))?;
        inner.take_events(py)
    }

    /// Adds sessions to the table.
    fn extend_sessions(&self, py: Python<'_>, sessions: &Bound<'_, PyDict>) -> PyResult<()> {
        let sessions = read_sessions(sessions)?;
        let mut inner = self.ready()?;
        inner
            .guarded(|inner| inner.engine.extend_sessions(sessions))?
            .map_err(|error| raise(py, &error))
    }

    /// Ends halt and pause at the operator's word.
    fn reset_halt<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut inner = self.ready()?;
        inner.guarded(|inner| inner.engine.reset_halt(&mut inner.events))?;
        inner.take_events(py)
    }

    /// Closes the last bar's interval and returns the rows of trades that are still open.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut inner = self.ready()?;
        inner.guarded(|inner| inner.engine.finish(&mut inner.events))?;
        inner.take_events(py)
    }

    /// Returns the state of the account as text, for `take_over` of another engine.
    fn account_state(&self, py: Python<'_>) -> PyResult<String> {
        let mut inner = self.ready()?;
        inner
            .guarded(|inner| inner.engine.account_state())?
            .map_err(|error| raise(py, &error))
    }

    /// Goes on with the account of another engine. Bars seen before stay.
    fn take_over(&self, py: Python<'_>, state: &Bound<'_, PyString>) -> PyResult<()> {
        let mut inner = self.ready()?;
        // What is not Unicode is not the text of a state either.
        let state = state.to_string_lossy();
        inner
            .guarded(|inner| inner.engine.take_over(&state))?
            .map_err(|error| raise(py, &error))
    }

    /// Returns the rows of trades that are open, valued at the last close. Changes nothing.
    fn open_trades<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.ready()?
            .tell(py, |engine, events| engine.open_trades(events))
    }

    /// Returns the signals that wait for their retest. Changes nothing.
    fn pending_signals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.ready()?
            .tell(py, |engine, events| engine.pending_signals(events))
    }

    /// Returns the orders that work. Changes nothing.
    fn working_orders<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.ready()?
            .tell(py, |engine, events| engine.working_orders(events))
    }

    /// Forgets every bar.
    fn reset(&self) -> PyResult<()> {
        let mut inner = self.lock()?;
        inner.engine.reset();
        let root = inner.engine.instrument().root.clone();
        inner.symbol = inner.engine.symbol(&root);
        inner.events.clear();
        inner.faulty = false;
        drop(inner);
        self.inner.clear_poison();
        Ok(())
    }

    /// Returns how many bars and windows went where, and what is still waiting.
    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.ready()?;
        let (bars, windows) = (inner.engine.bar_counts(), inner.engine.window_counts());
        let (signals, orders, positions) = inner.engine.waiting();
        let counts = PyDict::new(py);
        counts.set_item("bars", bars.bars)?;
        counts.set_item("context_bars", bars.context_bars)?;
        counts.set_item("zero_volume", bars.zero_volume)?;
        counts.set_item("outside_session", bars.outside_session)?;
        counts.set_item("windows", windows.windows)?;
        counts.set_item("thin", windows.thin)?;
        counts.set_item("warming_up", windows.warming_up)?;
        counts.set_item("quiet", windows.quiet)?;
        counts.set_item("clusters", windows.clusters)?;
        counts.set_item("pending_signals", signals)?;
        counts.set_item("working_orders", orders)?;
        counts.set_item("open_positions", positions)?;
        Ok(counts)
    }
}

fn read_instrument(instrument: &Bound<'_, PyDict>) -> PyResult<Instrument> {
    let get = |name: &str| {
        instrument.get_item(name)?.ok_or_else(|| {
            exceptions::ConfigError::new_err(format!("instrument: {name} is missing"))
        })
    };
    Ok(Instrument {
        root: get("root")?.extract()?,
        tick_nanos: get("tick_nanos")?.extract()?,
        point_value: get("point_value")?.extract()?,
        commission: get("commission")?.extract()?,
        margin: get("margin")?.extract()?,
    })
}
