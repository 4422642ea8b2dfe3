//! The columns that records are read into.

use crate::{
    error::{Error, Result},
    layout::{self, DefinitionLayout, MappingLayout, TradeLayout},
};

/// Bars of one interval, one entry of every column a bar.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct BarColumns {
    /// Start of the bar, ns since the epoch.
    pub ts_event: Vec<i64>,
    /// Databento's number of the instrument.
    pub instrument_id: Vec<u32>,
    /// Open, 1e-9.
    pub open: Vec<i64>,
    /// High, 1e-9.
    pub high: Vec<i64>,
    /// Low, 1e-9.
    pub low: Vec<i64>,
    /// Close, 1e-9.
    pub close: Vec<i64>,
    /// Contracts.
    pub volume: Vec<i64>,
}

/// Trades, one entry of every column a trade.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct TradeColumns {
    /// When the capture server received it, ns since the epoch. Bars are formed on this.
    pub ts_recv: Vec<i64>,
    /// When the venue says it happened, ns since the epoch.
    pub ts_event: Vec<i64>,
    /// Databento's number of the instrument.
    pub instrument_id: Vec<u32>,
    /// Price, 1e-9.
    pub price: Vec<i64>,
    /// Contracts.
    pub size: Vec<u32>,
    /// Aggressor: `A` sold, `B` bought, `N` not said; ASCII.
    pub side: Vec<u8>,
    /// Bit flags of the record.
    pub flags: Vec<u8>,
}

/// Definitions of instruments.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct DefinitionColumns {
    /// When the definition was published, ns since the epoch.
    pub ts_event: Vec<i64>,
    /// Databento's number of the instrument.
    pub instrument_id: Vec<u32>,
    /// The venue's symbol.
    pub raw_symbol: Vec<String>,
    /// The venue's product, such as `ES`.
    pub asset: Vec<String>,
    /// Currency of the price.
    pub currency: Vec<String>,
    /// Class: `F` future, `S` future spread, `C` and `P` options, ...
    pub instrument_class: Vec<String>,
    /// Tick, 1e-9.
    pub min_price_increment: Vec<i64>,
    /// Money value of a tick, 1e-9.
    pub min_price_increment_amount: Vec<i64>,
    /// Contract size (the value of one point for an index future), 1e-9.
    pub unit_of_measure_qty: Vec<i64>,
    /// Contract multiplier; 2^31-1 where the venue gives none.
    pub contract_multiplier: Vec<i32>,
    /// Last moment of trading, ns since the epoch; 2^64-1 where there is none.
    pub expiration: Vec<u64>,
}

/// Symbol mappings sent inside a live capture.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MappingColumns {
    /// Databento's number of the instrument.
    pub instrument_id: Vec<u32>,
    /// The symbol that was asked for.
    pub symbol_in: Vec<String>,
    /// The symbol that it stands for.
    pub symbol_out: Vec<String>,
    /// First instant of validity, ns since the epoch; 2^64-1 where there is none.
    pub start_ts: Vec<u64>,
    /// First instant after it, ns since the epoch; 2^64-1 where there is none.
    pub end_ts: Vec<u64>,
}

/// Reads `N` bytes; the callers have checked the record's length, so the zero is never seen.
fn bytes_at<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .unwrap_or([0; N])
}

fn u8_at(record: &[u8], at: usize) -> u8 {
    u8::from_le_bytes(bytes_at(record, at))
}

fn u32_at(record: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(record, at))
}

fn i32_at(record: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(bytes_at(record, at))
}

fn i64_at(record: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes_at(record, at))
}

fn u64_at(record: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes_at(record, at))
}

/// Reads a null-terminated name. Bytes that are not UTF-8 are replaced: a name is for people.
fn text_at(record: &[u8], at: usize, bytes: usize) -> String {
    let field = record.get(at..at + bytes).unwrap_or_default();
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(bytes);
    String::from_utf8_lossy(field.get(..end).unwrap_or_default()).into_owned()
}

/// Returns whether a value from `first` on is faulty. It looks at all of them, side by side in the
/// cache where they were just written, which is quicker than to stop at one.
fn any_from(first: usize, column: &[i64], is_faulty: impl Fn(i64) -> bool) -> bool {
    let added = column.get(first..).unwrap_or_default();
    added
        .iter()
        .fold(false, |seen, &value| seen | is_faulty(value))
}

fn time_error(record: u64, column: &'static str, found: i64) -> Error {
    Error::Value {
        record,
        column,
        problem: "the timestamp is undefined or beyond the year 2262",
        found: (found as u64).to_string(),
        expected: "nanoseconds since 1970",
    }
}

fn price_error(record: u64, column: &'static str) -> Error {
    Error::Value {
        record,
        column,
        problem: "the price is undefined",
        found: "UNDEF_PRICE (2^63-1)".to_owned(),
        expected: "a price in 1e-9",
    }
}

impl BarColumns {
    /// Returns the number of bars.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ts_event.len()
    }

    /// Returns whether there is no bar.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ts_event.is_empty()
    }

    /// Makes room for more bars; without memory for all of them, they grow as they come.
    pub(crate) fn reserve(&mut self, additional: usize) {
        for column in [
            &mut self.ts_event,
            &mut self.open,
            &mut self.high,
            &mut self.low,
            &mut self.close,
            &mut self.volume,
        ] {
            drop(column.try_reserve_exact(additional));
        }
        drop(self.instrument_id.try_reserve_exact(additional));
    }

    /// Appends records whose length and type bytes have been checked, column by column: a block
    /// lies in the cache, and seven plain copies of it are faster than one loop over seven vectors.
    pub(crate) fn extend<const N: usize>(&mut self, records: &[[u8; N]], first: u64) -> Result<()> {
        use layout::{header, ohlcv};
        let first_new = self.open.len();
        let copy = |column: &mut Vec<i64>, at: usize| {
            column.extend(records.iter().map(|record| i64_at(record, at)));
        };
        copy(&mut self.open, ohlcv::OPEN);
        copy(&mut self.high, ohlcv::HIGH);
        copy(&mut self.low, ohlcv::LOW);
        copy(&mut self.close, ohlcv::CLOSE);
        copy(&mut self.ts_event, header::TS_EVENT);
        copy(&mut self.volume, ohlcv::VOLUME);
        self.instrument_id.extend(
            records
                .iter()
                .map(|record| u32_at(record, header::INSTRUMENT_ID)),
        );
        let undefined = |value: i64| value == dbn::UNDEF_PRICE;
        let negative = |value: i64| value < 0;
        let faulty = any_from(first_new, &self.open, undefined)
            | any_from(first_new, &self.high, undefined)
            | any_from(first_new, &self.low, undefined)
            | any_from(first_new, &self.close, undefined)
            | any_from(first_new, &self.ts_event, negative)
            | any_from(first_new, &self.volume, negative);
        if faulty {
            return Err(Self::first_fault(records, first));
        }
        Ok(())
    }

    #[cold]
    fn first_fault<const N: usize>(records: &[[u8; N]], first: u64) -> Error {
        use layout::{header, ohlcv};
        let prices = [
            ("open", ohlcv::OPEN),
            ("high", ohlcv::HIGH),
            ("low", ohlcv::LOW),
            ("close", ohlcv::CLOSE),
        ];
        for (record, index) in records.iter().zip(first..) {
            let ts_event = i64_at(record, header::TS_EVENT);
            if ts_event < 0 {
                return time_error(index, "ts_event", ts_event);
            }
            for (column, at) in prices {
                if i64_at(record, at) == dbn::UNDEF_PRICE {
                    return price_error(index, column);
                }
            }
            let volume = u64_at(record, ohlcv::VOLUME);
            if i64::try_from(volume).is_err() {
                return Error::Value {
                    record: index,
                    column: "volume",
                    problem: "the volume is undefined or too large",
                    found: volume.to_string(),
                    expected: "a count of contracts below 2^63",
                };
            }
        }
        Error::Metadata("a fault was seen and not found again".to_owned())
    }
}

impl TradeColumns {
    /// Returns the number of trades.
    #[must_use]
    pub fn len(&self) -> usize {
        self.price.len()
    }

    /// Returns whether there is no trade.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.price.is_empty()
    }

    /// Appends the record if it is a trade. Fills (`F`) are the other side of a trade already
    /// told, so counting them would count it twice.
    pub(crate) fn push(&mut self, record: &[u8], at: &TradeLayout, index: u64) -> Result<()> {
        use layout::header;
        if u8_at(record, at.action) != b'T' {
            return Ok(());
        }
        let ts_recv = i64_at(record, at.ts_recv);
        let ts_event = i64_at(record, header::TS_EVENT);
        let price = i64_at(record, at.price);
        if ts_recv < 0 {
            return Err(time_error(index, "ts_recv", ts_recv));
        }
        if ts_event < 0 {
            return Err(time_error(index, "ts_event", ts_event));
        }
        if price == dbn::UNDEF_PRICE {
            return Err(price_error(index, "price"));
        }
        let size = u32_at(record, at.size);
        if size == dbn::UNDEF_ORDER_SIZE {
            return Err(Error::Value {
                record: index,
                column: "size",
                problem: "the size is undefined",
                found: size.to_string(),
                expected: "a count of contracts",
            });
        }
        self.ts_recv.push(ts_recv);
        self.ts_event.push(ts_event);
        self.instrument_id
            .push(u32_at(record, header::INSTRUMENT_ID));
        self.price.push(price);
        self.size.push(size);
        self.side.push(u8_at(record, at.side));
        self.flags.push(u8_at(record, at.flags));
        Ok(())
    }
}

impl DefinitionColumns {
    /// Returns the number of definitions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instrument_id.len()
    }

    /// Returns whether there is no definition.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instrument_id.is_empty()
    }

    pub(crate) fn push(&mut self, record: &[u8], at: &DefinitionLayout) {
        use layout::header;
        self.ts_event.push(i64_at(record, header::TS_EVENT));
        self.instrument_id
            .push(u32_at(record, header::INSTRUMENT_ID));
        self.raw_symbol
            .push(text_at(record, at.raw_symbol, at.raw_symbol_bytes));
        self.asset.push(text_at(record, at.asset, at.asset_bytes));
        self.currency
            .push(text_at(record, at.currency, layout::CURRENCY_BYTES));
        self.instrument_class
            .push(text_at(record, at.instrument_class, 1));
        self.min_price_increment
            .push(i64_at(record, at.min_price_increment));
        self.min_price_increment_amount
            .push(i64_at(record, at.min_price_increment_amount));
        self.unit_of_measure_qty
            .push(i64_at(record, at.unit_of_measure_qty));
        self.contract_multiplier
            .push(i32_at(record, at.contract_multiplier));
        self.expiration.push(u64_at(record, at.expiration));
    }
}

impl MappingColumns {
    /// Returns the number of mappings.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instrument_id.len()
    }

    /// Returns whether there is no mapping.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instrument_id.is_empty()
    }

    pub(crate) fn push(&mut self, record: &[u8], at: &MappingLayout) {
        use layout::header;
        self.instrument_id
            .push(u32_at(record, header::INSTRUMENT_ID));
        self.symbol_in
            .push(text_at(record, at.symbol_in, at.symbol_bytes));
        self.symbol_out
            .push(text_at(record, at.symbol_out, at.symbol_bytes));
        self.start_ts.push(u64_at(record, at.start_ts));
        self.end_ts.push(u64_at(record, at.end_ts));
    }
}
