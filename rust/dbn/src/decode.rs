//! The walk over a stream: header, then records, each checked before it is touched.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    sync::Once,
};

use dbn::{Metadata, VersionUpgradePolicy, decode::dbn::MetadataDecoder};

use crate::{
    columns::{BarColumns, DefinitionColumns, MappingColumns, TradeColumns},
    error::{Error, Result},
    layout::{
        BAR_SLOTS, DefinitionLayout, HEADER_BYTES, Kind, MappingLayout, OHLCV_BYTES, Role,
        TRADE_SLOTS, TS_OUT_BYTES, definition, header, kind, mapping,
    },
    stream::{Sink, Stream, drain},
};

/// `DBN`, the version byte and the length of the rest of the header.
const PRELUDE_BYTES: usize = 8;
/// Fixed part of the header behind the prelude, of every version read here.
const FIXED_METADATA_BYTES: usize = 100;
/// Records copied column by column at a time: few enough to stay in the first-level cache.
const RECORDS_AT_ONCE: usize = 256;
/// Bytes read at a time from the file.
const FILE_BUFFER_BYTES: usize = 256 * 1024;

/// What a DBN stream holds.
#[derive(Debug)]
pub struct Decoded {
    /// The header, as the `dbn` crate parses it.
    pub metadata: Metadata,
    /// Records of any type.
    pub records: u64,
    /// Records by the name of their type.
    pub counts: BTreeMap<&'static str, u64>,
    /// Bars by schema, with the interval in nanoseconds; only those that are there.
    pub bars: Vec<(&'static str, i64, BarColumns)>,
    /// Trades by the record type that told them; only those that are there.
    pub trades: Vec<(&'static str, TradeColumns)>,
    /// Definitions of instruments.
    pub definitions: DefinitionColumns,
    /// Symbol mappings sent as records, in live captures.
    pub mappings: MappingColumns,
}

/// Decodes the file at `path`.
///
/// # Errors
/// Where the file cannot be read, is not DBN of version 1 to 3, is cut off or is damaged.
pub fn decode_file(path: impl AsRef<Path>) -> Result<Decoded> {
    static ONCE: Once = Once::new();
    ONCE.call_once(keep_freed_columns);
    let file = File::open(path).map_err(|error| Error::Io(error.to_string()))?;
    let source_bytes = file.metadata().ok().map(|metadata| metadata.len());
    walk(
        BufReader::with_capacity(FILE_BUFFER_BYTES, file),
        source_bytes,
    )
}

/// Makes the allocator keep the memory of columns that were freed, for the next file's.
///
/// glibc returns freed blocks above a threshold to the system at once, and the threshold is the
/// largest such block seen, up to 32 MiB. Without this, every file is read into pages touched for the
/// first time, which costs as much as to decompress it. Nothing is written to the block.
fn keep_freed_columns() {
    const LARGEST_BYTES: usize = 31 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(
        LARGEST_BYTES,
    )));
}

/// Decodes a stream of DBN bytes, plain or compressed with zstd.
///
/// # Errors
/// Where the stream cannot be read, is not DBN of version 1 to 3, is cut off or is damaged.
pub fn decode<R: BufRead>(reader: R) -> Result<Decoded> {
    walk(reader, None)
}

fn walk<R: BufRead>(reader: R, source_bytes: Option<u64>) -> Result<Decoded> {
    let mut stream = Stream::open(reader)?;
    let metadata = decode_metadata(&mut stream)?;
    let mut records = Records::new(metadata.version, metadata.ts_out);
    let rest = drain(stream, source_bytes, &mut records)?;
    if let Some(&length) = rest.first() {
        return Err(Error::RecordTruncated {
            record: records.index,
            found: rest.len(),
            expected: (usize::from(length) * 4).max(HEADER_BYTES),
        });
    }
    Ok(records.finish(metadata))
}

fn decode_metadata<R: BufRead>(stream: &mut Stream<'_, R>) -> Result<Metadata> {
    let mut bytes = stream.take(PRELUDE_BYTES)?;
    let Some((prelude, _)) = bytes.split_first_chunk::<PRELUDE_BYTES>() else {
        return Err(not_dbn(&bytes));
    };
    let [b'D', b'B', b'N', version, length @ ..] = *prelude else {
        return Err(if is_fragment(prelude) {
            Error::Fragment
        } else {
            not_dbn(&bytes)
        });
    };
    if !(1..=3).contains(&version) {
        return Err(Error::Version { found: version });
    }
    let length = u32::from_le_bytes(length);
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    if wanted < FIXED_METADATA_BYTES {
        return Err(Error::Metadata(format!(
            "it states {length} bytes, fewer than the {FIXED_METADATA_BYTES} of its fixed part"
        )));
    }
    let rest = stream.take(wanted)?;
    if rest.len() < wanted {
        return Err(Error::MetadataTruncated {
            found: rest.len() as u64,
            expected: u64::from(length),
        });
    }
    bytes.extend_from_slice(&rest);
    MetadataDecoder::with_upgrade_policy(bytes.as_slice(), VersionUpgradePolicy::AsIs)
        .decode()
        .map_err(|error| Error::Metadata(error.to_string()))
}

fn not_dbn(bytes: &[u8]) -> Error {
    Error::NotDbn {
        found: format!("\"{}\"", bytes.escape_ascii()),
    }
}

/// Returns whether the bytes are the start of a record: a type of some version with its length.
fn is_fragment(bytes: &[u8; PRELUDE_BYTES]) -> bool {
    let length = usize::from(bytes[0]) * 4;
    (1..=3).any(|version| {
        kind(bytes[header::RTYPE], version)
            .is_some_and(|kind| length == kind.bytes || length == kind.bytes + TS_OUT_BYTES)
    })
}

/// The columns while they grow.
struct Records {
    kinds: Vec<Option<Kind>>,
    extra_bytes: usize,
    definition_layout: DefinitionLayout,
    mapping_layout: MappingLayout,
    index: u64,
    counts: Vec<u64>,
    bars: [BarColumns; BAR_SLOTS.len()],
    trades: [TradeColumns; TRADE_SLOTS.len()],
    definitions: DefinitionColumns,
    mappings: MappingColumns,
}

impl Sink for Records {
    fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        self.take_block(bytes)
    }

    fn expect(&mut self, bytes: u64) {
        // Only where all records so far are bars of one length: others are few, or not kept.
        let record_bytes = (OHLCV_BYTES + self.extra_bytes) as u64;
        for bars in &mut self.bars {
            if bars.len() as u64 == self.index {
                bars.reserve(usize::try_from(bytes / record_bytes).unwrap_or(0));
            }
        }
    }

    fn records(&self) -> u64 {
        self.index
    }
}

impl Records {
    fn new(version: u8, ts_out: bool) -> Self {
        Self {
            kinds: (0..=u8::MAX).map(|rtype| kind(rtype, version)).collect(),
            extra_bytes: if ts_out { TS_OUT_BYTES } else { 0 },
            definition_layout: definition(version),
            mapping_layout: mapping(version),
            index: 0,
            counts: vec![0; 256],
            bars: Default::default(),
            trades: Default::default(),
            definitions: DefinitionColumns::default(),
            mappings: MappingColumns::default(),
        }
    }

    /// Takes every whole record of the block and returns the bytes used.
    fn take_block(&mut self, block: &[u8]) -> Result<usize> {
        let mut used = 0;
        loop {
            let rest = block.get(used..).unwrap_or_default();
            let [length, rtype, ..] = *rest else {
                return Ok(used);
            };
            let kind = self.check(length, rtype)?;
            let bytes = usize::from(length) * 4;
            let Some(record) = rest.get(..bytes) else {
                return Ok(used);
            };
            used += match kind.role {
                Role::Bar { slot } => self.take_bars(rest, slot)?,
                Role::Trade { slot, layout } => {
                    if let Some(trades) = self.trades.get_mut(slot) {
                        trades.push(record, &layout, self.index)?;
                    }
                    self.count(rtype, 1);
                    bytes
                }
                Role::Definition => {
                    self.definitions.push(record, &self.definition_layout);
                    self.count(rtype, 1);
                    bytes
                }
                Role::Mapping => {
                    self.mappings.push(record, &self.mapping_layout);
                    self.count(rtype, 1);
                    bytes
                }
                Role::Other => {
                    self.count(rtype, 1);
                    bytes
                }
            };
        }
    }

    fn check(&self, length: u8, rtype: u8) -> Result<Kind> {
        let Some(kind) = self.kinds.get(usize::from(rtype)).copied().flatten() else {
            // A length that is no record's says more about the damage than the type byte does.
            return Err(if usize::from(length) * 4 < HEADER_BYTES {
                Error::RecordLength {
                    record: self.index,
                    kind: "a record header",
                    found: usize::from(length) * 4,
                    expected: HEADER_BYTES,
                }
            } else {
                Error::RecordType {
                    record: self.index,
                    found: rtype,
                }
            });
        };
        let expected = kind.bytes + self.extra_bytes;
        if usize::from(length) * 4 == expected {
            Ok(kind)
        } else {
            Err(Error::RecordLength {
                record: self.index,
                kind: kind.name,
                found: usize::from(length) * 4,
                expected,
            })
        }
    }

    fn count(&mut self, rtype: u8, records: usize) {
        if let Some(count) = self.counts.get_mut(usize::from(rtype)) {
            *count += records as u64;
        }
        self.index += records as u64;
    }

    fn take_bars(&mut self, bytes: &[u8], slot: usize) -> Result<usize> {
        if self.extra_bytes == 0 {
            self.take_run::<OHLCV_BYTES>(bytes, slot)
        } else {
            self.take_run::<{ OHLCV_BYTES + TS_OUT_BYTES }>(bytes, slot)
        }
    }

    /// Takes the run of records that share the first one's length and type.
    fn take_run<const N: usize>(&mut self, bytes: &[u8], slot: usize) -> Result<usize> {
        let (whole, _) = bytes.as_chunks::<N>();
        let Some(first) = whole.first() else {
            return Ok(0);
        };
        let start = [first[0], first[1]];
        let run = whole
            .iter()
            .position(|record| [record[0], record[1]] != start)
            .unwrap_or(whole.len());
        let Some((bars, records)) = self.bars.get_mut(slot).zip(whole.get(..run)) else {
            return Ok(0);
        };
        for (part, first) in records
            .chunks(RECORDS_AT_ONCE)
            .zip((self.index..).step_by(RECORDS_AT_ONCE))
        {
            bars.extend(part, first)?;
        }
        self.count(start[1], run);
        Ok(run * N)
    }

    fn finish(self, metadata: Metadata) -> Decoded {
        let counts = self
            .kinds
            .iter()
            .zip(&self.counts)
            .filter_map(|(kind, &count)| kind.map(|kind| (kind.name, count)))
            .filter(|&(_, count)| count > 0)
            .collect();
        let bars = BAR_SLOTS
            .into_iter()
            .zip(self.bars)
            .filter(|(_, columns)| !columns.is_empty())
            .map(|((name, interval_ns), columns)| (name, interval_ns, columns))
            .collect();
        let trades = TRADE_SLOTS
            .into_iter()
            .zip(self.trades)
            .filter(|(_, columns)| !columns.is_empty())
            .collect();
        Decoded {
            metadata,
            records: self.index,
            counts,
            bars,
            trades,
            definitions: self.definitions,
            mappings: self.mappings,
        }
    }
}
