//! Sizes and field offsets, taken from the structs of the `dbn` crate so that none is typed twice.

use std::mem::{offset_of, size_of};

use dbn::{
    BboMsg, CbboMsg, Cmbp1Msg, ImbalanceMsg, MboMsg, Mbp1Msg, Mbp10Msg, OhlcvMsg, RecordHeader,
    StatusMsg, TradeMsg, v1, v2, v3,
};

pub(crate) const HEADER_BYTES: usize = size_of::<RecordHeader>();
pub(crate) const OHLCV_BYTES: usize = size_of::<OhlcvMsg>();
/// The send timestamp that live streams may append to every record.
pub(crate) const TS_OUT_BYTES: usize = 8;

/// Offsets inside the record header.
pub(crate) mod header {
    use super::{RecordHeader, offset_of};
    pub(crate) const RTYPE: usize = offset_of!(RecordHeader, rtype);
    pub(crate) const INSTRUMENT_ID: usize = offset_of!(RecordHeader, instrument_id);
    pub(crate) const TS_EVENT: usize = offset_of!(RecordHeader, ts_event);
}

/// Offsets inside an OHLCV record.
pub(crate) mod ohlcv {
    use super::{OhlcvMsg, offset_of};
    pub(crate) const OPEN: usize = offset_of!(OhlcvMsg, open);
    pub(crate) const HIGH: usize = offset_of!(OhlcvMsg, high);
    pub(crate) const LOW: usize = offset_of!(OhlcvMsg, low);
    pub(crate) const CLOSE: usize = offset_of!(OhlcvMsg, close);
    pub(crate) const VOLUME: usize = offset_of!(OhlcvMsg, volume);
}

/// Where a record that can carry a trade keeps the trade's fields.
#[derive(Clone, Copy)]
pub(crate) struct TradeLayout {
    pub(crate) price: usize,
    pub(crate) size: usize,
    pub(crate) action: usize,
    pub(crate) side: usize,
    pub(crate) flags: usize,
    pub(crate) ts_recv: usize,
}

macro_rules! trade_layout {
    ($record:ty) => {
        TradeLayout {
            price: offset_of!($record, price),
            size: offset_of!($record, size),
            action: offset_of!($record, action),
            side: offset_of!($record, side),
            flags: offset_of!($record, flags),
            ts_recv: offset_of!($record, ts_recv),
        }
    };
}

const TRADE: TradeLayout = trade_layout!(TradeMsg);
const MBO: TradeLayout = trade_layout!(MboMsg);
const MBP1: TradeLayout = trade_layout!(Mbp1Msg);
const MBP10: TradeLayout = trade_layout!(Mbp10Msg);
const CMBP1: TradeLayout = trade_layout!(Cmbp1Msg);

/// Where a definition keeps what an instrument is checked against.
#[derive(Clone, Copy)]
pub(crate) struct DefinitionLayout {
    pub(crate) raw_symbol: usize,
    pub(crate) raw_symbol_bytes: usize,
    pub(crate) asset: usize,
    pub(crate) asset_bytes: usize,
    pub(crate) currency: usize,
    pub(crate) instrument_class: usize,
    pub(crate) min_price_increment: usize,
    pub(crate) min_price_increment_amount: usize,
    pub(crate) unit_of_measure_qty: usize,
    pub(crate) contract_multiplier: usize,
    pub(crate) expiration: usize,
}

pub(crate) const CURRENCY_BYTES: usize = 4;

macro_rules! definition_layout {
    ($version:ident) => {
        DefinitionLayout {
            raw_symbol: offset_of!($version::InstrumentDefMsg, raw_symbol),
            raw_symbol_bytes: $version::SYMBOL_CSTR_LEN,
            asset: offset_of!($version::InstrumentDefMsg, asset),
            asset_bytes: $version::ASSET_CSTR_LEN,
            currency: offset_of!($version::InstrumentDefMsg, currency),
            instrument_class: offset_of!($version::InstrumentDefMsg, instrument_class),
            min_price_increment: offset_of!($version::InstrumentDefMsg, min_price_increment),
            min_price_increment_amount: offset_of!(
                $version::InstrumentDefMsg,
                min_price_increment_amount
            ),
            unit_of_measure_qty: offset_of!($version::InstrumentDefMsg, unit_of_measure_qty),
            contract_multiplier: offset_of!($version::InstrumentDefMsg, contract_multiplier),
            expiration: offset_of!($version::InstrumentDefMsg, expiration),
        }
    };
}

pub(crate) const fn definition(version: u8) -> DefinitionLayout {
    match version {
        1 => definition_layout!(v1),
        2 => definition_layout!(v2),
        _ => definition_layout!(v3),
    }
}

/// Where a symbol mapping keeps its two symbols.
#[derive(Clone, Copy)]
pub(crate) struct MappingLayout {
    pub(crate) symbol_in: usize,
    pub(crate) symbol_out: usize,
    pub(crate) symbol_bytes: usize,
    pub(crate) start_ts: usize,
    pub(crate) end_ts: usize,
}

macro_rules! mapping_layout {
    ($version:ident) => {
        MappingLayout {
            symbol_in: offset_of!($version::SymbolMappingMsg, stype_in_symbol),
            symbol_out: offset_of!($version::SymbolMappingMsg, stype_out_symbol),
            symbol_bytes: $version::SYMBOL_CSTR_LEN,
            start_ts: offset_of!($version::SymbolMappingMsg, start_ts),
            end_ts: offset_of!($version::SymbolMappingMsg, end_ts),
        }
    };
}

pub(crate) const fn mapping(version: u8) -> MappingLayout {
    match version {
        1 => mapping_layout!(v1),
        2 => mapping_layout!(v2),
        _ => mapping_layout!(v3),
    }
}

/// What a record type is to us.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    /// A bar of this many nanoseconds, kept in this slot.
    Bar {
        slot: usize,
    },
    /// A record that carries a trade when its action is `T`, kept in this slot.
    Trade {
        slot: usize,
        layout: TradeLayout,
    },
    Definition,
    Mapping,
    /// Known, and of no use for bars.
    Other,
}

/// Name, size in bytes without `ts_out`, and role of a record type.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) bytes: usize,
    pub(crate) role: Role,
}

/// Name and length in nanoseconds of every bar record type, in the order of their slots.
pub(crate) const BAR_SLOTS: [(&str, i64); 4] = [
    ("ohlcv-1s", 1_000_000_000),
    ("ohlcv-1m", 60_000_000_000),
    ("ohlcv-1h", 3_600_000_000_000),
    ("ohlcv-1d", 86_400_000_000_000),
];

/// Name of every trade-bearing record type, in the order of their slots.
pub(crate) const TRADE_SLOTS: [&str; 6] = ["trades", "mbp-1", "mbp-10", "mbo", "cmbp-1", "tcbbo"];

/// Returns what a type byte means in a version, or `None` when DBN does not define it.
pub(crate) fn kind(rtype: u8, version: u8) -> Option<Kind> {
    use dbn::rtype;
    let bar = |slot: usize| Kind {
        name: BAR_SLOTS[slot].0,
        bytes: OHLCV_BYTES,
        role: Role::Bar { slot },
    };
    let trade = |slot: usize, bytes: usize, layout: TradeLayout| Kind {
        name: TRADE_SLOTS[slot],
        bytes,
        role: Role::Trade { slot, layout },
    };
    let other = |name: &'static str, bytes: usize| Kind {
        name,
        bytes,
        role: Role::Other,
    };
    let by_version = |first: usize, second: usize, third: usize| match version {
        1 => first,
        2 => second,
        _ => third,
    };
    Some(match rtype {
        rtype::OHLCV_1S => bar(0),
        rtype::OHLCV_1M => bar(1),
        rtype::OHLCV_1H => bar(2),
        rtype::OHLCV_1D => bar(3),
        rtype::OHLCV_EOD => other("ohlcv-eod", OHLCV_BYTES),
        rtype::MBP_0 => trade(0, size_of::<TradeMsg>(), TRADE),
        rtype::MBP_1 => trade(1, size_of::<Mbp1Msg>(), MBP1),
        rtype::MBP_10 => trade(2, size_of::<Mbp10Msg>(), MBP10),
        rtype::MBO => trade(3, size_of::<MboMsg>(), MBO),
        rtype::CMBP_1 => trade(4, size_of::<Cmbp1Msg>(), CMBP1),
        rtype::TCBBO => trade(5, size_of::<Cmbp1Msg>(), CMBP1),
        rtype::INSTRUMENT_DEF => Kind {
            name: "definition",
            bytes: by_version(
                size_of::<v1::InstrumentDefMsg>(),
                size_of::<v2::InstrumentDefMsg>(),
                size_of::<v3::InstrumentDefMsg>(),
            ),
            role: Role::Definition,
        },
        rtype::SYMBOL_MAPPING => Kind {
            name: "symbol mapping",
            bytes: by_version(
                size_of::<v1::SymbolMappingMsg>(),
                size_of::<v2::SymbolMappingMsg>(),
                size_of::<v3::SymbolMappingMsg>(),
            ),
            role: Role::Mapping,
        },
        rtype::STATISTICS => other(
            "statistics",
            by_version(
                size_of::<v1::StatMsg>(),
                size_of::<v2::StatMsg>(),
                size_of::<v3::StatMsg>(),
            ),
        ),
        rtype::SYSTEM => other(
            "system",
            by_version(
                size_of::<v1::SystemMsg>(),
                size_of::<v2::SystemMsg>(),
                size_of::<v3::SystemMsg>(),
            ),
        ),
        rtype::ERROR => other(
            "error",
            by_version(
                size_of::<v1::ErrorMsg>(),
                size_of::<v2::ErrorMsg>(),
                size_of::<v3::ErrorMsg>(),
            ),
        ),
        rtype::STATUS => other("status", size_of::<StatusMsg>()),
        rtype::IMBALANCE => other("imbalance", size_of::<ImbalanceMsg>()),
        rtype::BBO_1S => other("bbo-1s", size_of::<BboMsg>()),
        rtype::BBO_1M => other("bbo-1m", size_of::<BboMsg>()),
        rtype::CBBO_1S => other("cbbo-1s", size_of::<CbboMsg>()),
        rtype::CBBO_1M => other("cbbo-1m", size_of::<CbboMsg>()),
        _ => return None,
    })
}
