//! Streams built byte by byte: what is read, and how each kind of damage is refused.

use std::io::Read;

use clustercore_dbn::{Decoded, Error, decode};
use proptest::prelude::*;

const BAR_RTYPE: u8 = 33;
const UNDEFINED: i64 = i64::MAX;

/// A header of any version, with one mapping from `ES.c.0` to instrument 7 in 2019.
fn header(version: u8, schema: u16, ts_out: bool) -> Vec<u8> {
    let symbol_bytes = if version == 1 { 22 } else { 71 };
    let symbol = |text: &str| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(symbol_bytes, 0);
        bytes
    };
    let mut body = b"GLBX.MDP3".to_vec();
    body.resize(16, 0);
    body.extend(schema.to_le_bytes());
    body.extend(0_u64.to_le_bytes());
    body.extend(u64::MAX.to_le_bytes());
    body.extend(0_u64.to_le_bytes());
    if version == 1 {
        body.extend(0_u64.to_le_bytes());
    }
    body.extend([2, 0, u8::from(ts_out)]);
    if version > 1 {
        body.extend((symbol_bytes as u16).to_le_bytes());
    }
    body.resize(100, 0);
    body.extend(0_u32.to_le_bytes());
    body.extend(1_u32.to_le_bytes());
    body.extend(symbol("ES.c.0"));
    body.extend(0_u32.to_le_bytes());
    body.extend(0_u32.to_le_bytes());
    body.extend(1_u32.to_le_bytes());
    body.extend(symbol("ES.c.0"));
    body.extend(1_u32.to_le_bytes());
    body.extend(20_190_101_u32.to_le_bytes());
    body.extend(20_200_101_u32.to_le_bytes());
    body.extend(symbol("7"));
    let mut bytes = b"DBN".to_vec();
    bytes.push(version);
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(body);
    bytes
}

fn record(rtype: u8, ts_event: u64, body: &[u8]) -> Vec<u8> {
    let words = u8::try_from((16 + body.len()) / 4).expect("a short record");
    let mut bytes = vec![words, rtype, 1, 0];
    bytes.extend(7_u32.to_le_bytes());
    bytes.extend(ts_event.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn bar_body(prices: [i64; 4], volume: u64) -> Vec<u8> {
    let mut body: Vec<u8> = prices
        .iter()
        .flat_map(|price| price.to_le_bytes())
        .collect();
    body.extend(volume.to_le_bytes());
    body
}

fn bar(minute: u64) -> Vec<u8> {
    let base = 2_500_000_000_000 + i64::try_from(minute).expect("a small number") * 250_000_000;
    let prices = [
        base,
        base + 750_000_000,
        base - 250_000_000,
        base + 500_000_000,
    ];
    record(
        BAR_RTYPE,
        minute * 60_000_000_000,
        &bar_body(prices, minute + 1),
    )
}

fn bars(count: u64) -> Vec<u8> {
    (0..count).flat_map(bar).collect()
}

fn trade(rtype: u8, action: u8, levels: usize) -> Vec<u8> {
    let mut body = 2_500_000_000_000_i64.to_le_bytes().to_vec();
    body.extend(3_u32.to_le_bytes());
    body.extend([action, b'B', 130, 0]);
    body.extend(61_000_000_000_u64.to_le_bytes());
    body.extend([0; 8]);
    body.extend(vec![0; levels * 32]);
    record(rtype, 60_000_000_000, &body)
}

fn order(action: u8) -> Vec<u8> {
    let mut body = 99_u64.to_le_bytes().to_vec();
    body.extend(2_500_000_000_000_i64.to_le_bytes());
    body.extend(3_u32.to_le_bytes());
    body.extend([130, 0, action, b'A']);
    body.extend(61_000_000_000_u64.to_le_bytes());
    body.extend([0; 8]);
    record(160, 60_000_000_000, &body)
}

fn file(version: u8, records: &[u8]) -> Vec<u8> {
    [header(version, 6, false), records.to_vec()].concat()
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).expect("memory")
}

fn refused(bytes: &[u8]) -> Error {
    decode(bytes).expect_err("the stream is not usable")
}

fn read(bytes: &[u8]) -> Decoded {
    decode(bytes).expect("the stream is good")
}

#[test]
fn bars_of_every_version_become_columns() {
    for version in 1..=3 {
        let plain = file(version, &bars(5));
        for bytes in [plain.clone(), compressed(&plain)] {
            let decoded = read(&bytes);
            assert_eq!(decoded.metadata.version, version);
            assert_eq!(decoded.metadata.mappings.len(), 1);
            let (name, interval_ns, columns) = &decoded.bars[0];
            assert_eq!((*name, *interval_ns), ("ohlcv-1m", 60_000_000_000));
            assert_eq!(
                columns.ts_event,
                [0, 1, 2, 3, 4].map(|minute| minute * 60_000_000_000)
            );
            assert_eq!(columns.instrument_id, [7; 5]);
            assert_eq!(columns.open[1], 2_500_250_000_000);
            assert_eq!(columns.high[1], 2_501_000_000_000);
            assert_eq!(columns.low[1], 2_500_000_000_000);
            assert_eq!(columns.close[1], 2_500_750_000_000);
            assert_eq!(columns.volume, [1, 2, 3, 4, 5]);
            assert_eq!(decoded.records, 5);
        }
    }
}

#[test]
fn records_across_block_ends_are_whole() {
    // More than a few blocks of 128 KiB, which no multiple of 56 bytes fills.
    let count = 30_000;
    let plain = file(3, &bars(count));
    for bytes in [plain.clone(), compressed(&plain)] {
        let decoded = read(&bytes);
        let columns = &decoded.bars[0].2;
        assert_eq!(columns.len() as u64, count);
        let expected: Vec<i64> = (1..=i64::try_from(count).unwrap()).collect();
        assert_eq!(columns.volume, expected);
    }
}

#[test]
fn a_reader_that_gives_a_byte_at_a_time_changes_nothing() {
    struct Drip<'a>(&'a [u8]);
    impl Read for Drip<'_> {
        fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            space[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }
    let bytes = compressed(&file(2, &bars(300)));
    let dripped = decode(std::io::BufReader::with_capacity(16, Drip(&bytes))).unwrap();
    assert_eq!(dripped.bars, read(&bytes).bars);
}

#[test]
fn ts_out_lengthens_every_record() {
    let mut bytes = header(3, 6, true);
    for minute in 0..3 {
        let mut longer = bar(minute);
        longer[0] += 2;
        longer.extend(5_u64.to_le_bytes());
        bytes.extend(longer);
    }
    assert_eq!(read(&bytes).bars[0].2.volume, [1, 2, 3]);
    bytes.extend(bar(3));
    assert!(matches!(
        refused(&bytes),
        Error::RecordLength {
            record: 3,
            found: 56,
            expected: 64,
            ..
        }
    ));
}

#[test]
fn only_trades_are_kept_from_books_and_orders() {
    let records = [
        trade(0, b'T', 0),
        trade(1, b'A', 1),
        trade(1, b'T', 1),
        trade(10, b'M', 10),
        order(b'T'),
        order(b'F'),
        order(b'C'),
    ]
    .concat();
    let decoded = read(&file(3, &records));
    let sizes: Vec<_> = decoded
        .trades
        .iter()
        .map(|(name, columns)| (*name, columns.size.clone()))
        .collect();
    assert_eq!(
        sizes,
        [("trades", vec![3]), ("mbp-1", vec![3]), ("mbo", vec![3])]
    );
    let columns = &decoded.trades[0].1;
    assert_eq!(
        (columns.ts_event[0], columns.ts_recv[0]),
        (60_000_000_000, 61_000_000_000)
    );
    assert_eq!(
        (columns.price[0], columns.side[0], columns.flags[0]),
        (2_500_000_000_000, b'B', 130)
    );
    assert_eq!(decoded.trades[2].1.side, [b'A']);
    assert_eq!(decoded.counts["mbo"], 3);
}

#[test]
fn bars_of_two_lengths_stay_apart() {
    let mut second = bar(1);
    second[1] = 32;
    let decoded = read(&file(3, &[bar(0), second, bar(2)].concat()));
    let lengths: Vec<_> = decoded
        .bars
        .iter()
        .map(|(name, _, bars)| (*name, bars.len()))
        .collect();
    assert_eq!(lengths, [("ohlcv-1s", 1), ("ohlcv-1m", 2)]);
}

#[test]
fn a_stream_without_records_is_empty_and_good() {
    let decoded = read(&file(3, &[]));
    assert_eq!(
        (decoded.records, decoded.bars.len(), decoded.trades.len()),
        (0, 0, 0)
    );
}

#[test]
fn a_cut_plain_file_is_refused_with_its_record() {
    let bytes = file(3, &bars(4));
    let error = refused(&bytes[..bytes.len() - 10]);
    assert!(matches!(
        error,
        Error::RecordTruncated {
            record: 3,
            found: 46,
            expected: 56
        }
    ));
    assert_eq!(error.found().unwrap(), "46 bytes");
}

#[test]
fn a_cut_zstd_stream_is_refused_wherever_it_is_cut() {
    let bytes = compressed(&file(3, &bars(20_000)));
    for cut in [1, 9, 50, 90, 99] {
        let part = &bytes[..bytes.len() * cut / 100];
        assert!(
            matches!(refused(part), Error::ZstdTruncated { .. }),
            "cut at {cut} %"
        );
    }
    assert!(matches!(
        refused(&bytes[..bytes.len() - 1]),
        Error::ZstdTruncated { .. }
    ));
}

#[test]
fn the_records_before_a_cut_are_counted() {
    let bytes = compressed(&file(3, &bars(20_000)));
    let Error::ZstdTruncated { record } = refused(&bytes[..bytes.len() / 2]) else {
        panic!("another error");
    };
    assert!((1_000..19_000).contains(&record), "{record}");
}

#[test]
fn a_damaged_zstd_stream_is_refused() {
    let mut bytes = compressed(&file(3, &bars(2_000)));
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xFF;
    bytes[middle + 1] ^= 0xFF;
    assert!(decode(bytes.as_slice()).is_err());
    let good = compressed(&file(3, &bars(20)));
    let trailed = [good, b"trailing rubbish".to_vec()].concat();
    assert!(matches!(
        refused(&trailed),
        Error::ZstdCorrupt { record: 20, .. }
    ));
}

#[test]
fn several_zstd_frames_are_one_stream() {
    let bytes = file(3, &bars(10));
    let (first, second) = bytes.split_at(bytes.len() - 100);
    let decoded = read(&[compressed(first), compressed(second)].concat());
    assert_eq!(decoded.records, 10);
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for (length, found) in [(0, 0), (3, 12), (13, 52), (15, 60), (255, 1020)] {
        let mut records = bars(3);
        records[56] = length;
        let error = refused(&file(3, &records));
        assert!(
            matches!(error, Error::RecordLength { record: 1, found: bytes, expected: 56, .. } if bytes == found),
            "{error:?}"
        );
        assert_eq!(error.column(), Some("length"));
    }
}

#[test]
fn unknown_and_wrong_types_are_refused() {
    let mut records = bars(3);
    records[57] = 0x77;
    let error = refused(&file(3, &records));
    assert!(matches!(
        error,
        Error::RecordType {
            record: 1,
            found: 0x77
        }
    ));
    // The type of a trade on the bytes of a bar.
    records[57] = 0;
    assert!(matches!(
        refused(&file(3, &records)),
        Error::RecordLength {
            record: 1,
            kind: "trades",
            found: 56,
            expected: 48
        }
    ));
}

#[test]
fn undefined_values_are_refused_by_field() {
    let good = 2_500_000_000_000;
    for (column, place) in [("open", 0), ("high", 1), ("low", 2), ("close", 3)] {
        let mut prices = [good; 4];
        prices[place] = UNDEFINED;
        let records = [bar(0), record(BAR_RTYPE, 1, &bar_body(prices, 1))].concat();
        let error = refused(&file(3, &records));
        assert_eq!((error.record(), error.column()), (Some(1), Some(column)));
    }
    for (column, ts_event, volume) in [("volume", 0, u64::MAX), ("ts_event", u64::MAX, 1)] {
        let body = bar_body([good; 4], volume);
        let error = refused(&file(3, &record(BAR_RTYPE, ts_event, &body)));
        assert_eq!((error.record(), error.column()), (Some(0), Some(column)));
    }
}

#[test]
fn other_versions_and_kinds_are_named() {
    for version in [0, 4, 9, 255] {
        let mut bytes = file(3, &bars(1));
        bytes[3] = version;
        assert!(matches!(refused(&bytes), Error::Version { found } if found == version));
    }
    assert!(matches!(refused(b""), Error::Empty));
    assert!(matches!(refused(b"DBN"), Error::NotDbn { .. }));
    assert!(matches!(
        refused(b"\x89PNG\r\n\x1a\n and more"),
        Error::NotDbn { .. }
    ));
    assert!(matches!(
        refused(b"ts_event,open,high,low\n"),
        Error::NotDbn { .. }
    ));
    assert!(matches!(refused(&bars(2)), Error::Fragment));
    assert!(matches!(refused(&compressed(&bars(2))), Error::Fragment));
    assert!(matches!(
        refused(b"\x51\x2A\x4D\x18\0\0\0\0DBZ\x01"),
        Error::Dbz
    ));
}

#[test]
fn a_damaged_header_is_refused() {
    let bytes = file(3, &bars(1));
    assert!(matches!(
        refused(&bytes[..60]),
        Error::MetadataTruncated { found: 52, .. }
    ));
    let mut short = bytes.clone();
    short[4..8].copy_from_slice(&20_u32.to_le_bytes());
    assert!(matches!(refused(&short), Error::Metadata(_)));
    let mut long = bytes.clone();
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        refused(&long),
        Error::MetadataTruncated {
            expected: 0xFFFF_FFFF,
            ..
        }
    ));
    let mut schema = bytes;
    schema[24..26].copy_from_slice(&999_u16.to_le_bytes());
    assert!(matches!(refused(&schema), Error::Metadata(_)));
}

#[test]
fn definitions_and_mappings_are_read_at_their_versions_places() {
    let mut v1 = dbn::v1::InstrumentDefMsg::default();
    let mut v2 = dbn::v2::InstrumentDefMsg::default();
    let mut v3 = dbn::InstrumentDefMsg::default();
    macro_rules! fill {
        ($($record:ident),*) => {$(
            $record.hd.instrument_id = 7;
            $record.min_price_increment = 250_000_000;
            $record.unit_of_measure_qty = 50_000_000_000;
            $record.instrument_class = b'F' as std::ffi::c_char;
            for (to, from) in $record.raw_symbol.iter_mut().zip(b"ESZ5") {
                *to = *from as std::ffi::c_char;
            }
            for (to, from) in $record.asset.iter_mut().zip(b"ES") {
                *to = *from as std::ffi::c_char;
            }
        )*};
    }
    fill!(v1, v2, v3);
    let records: [(u8, &[u8]); 3] = [(1, v1.as_ref()), (2, v2.as_ref()), (3, v3.as_ref())];
    for (version, record) in records {
        let decoded = read(&file(version, record));
        let definitions = &decoded.definitions;
        assert_eq!(definitions.raw_symbol, ["ESZ5"], "version {version}");
        assert_eq!(definitions.asset, ["ES"]);
        assert_eq!(definitions.instrument_class, ["F"]);
        assert_eq!(definitions.min_price_increment, [250_000_000]);
        assert_eq!(definitions.unit_of_measure_qty, [50_000_000_000]);
    }
}

fn any_records() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            (0_u64..1_000).prop_map(bar),
            prop::sample::select(vec![b'T', b'A', b'F', b'?'])
                .prop_map(|action| trade(0, action, 0)),
            prop::sample::select(vec![b'T', b'A', b'F', b'?'])
                .prop_map(|action| trade(1, action, 1)),
            prop::sample::select(vec![b'T', b'F']).prop_map(order),
        ],
        0..40,
    )
    .prop_map(|records| records.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2_000)))]

    /// No bytes make the reader panic.
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        drop(decode(bytes.as_slice()));
    }

    /// Bytes behind a true start reach further in, and still nothing panics.
    #[test]
    fn random_bytes_after_a_header_never_panic(
        version in 1_u8..=3,
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        rtype in any::<u8>(),
    ) {
        let mut stream = header(version, u16::MAX, false);
        stream.extend([14, rtype]);
        stream.extend(bytes);
        drop(decode(stream.as_slice()));
    }

    /// Real-shaped streams with bytes changed, cut or repeated are read or refused.
    #[test]
    fn mutated_streams_never_panic(
        version in 1_u8..=3,
        records in any_records(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
        is_compressed in any::<bool>(),
    ) {
        let mut stream = file(version, &records);
        if is_compressed {
            stream = compressed(&stream);
        }
        for (place, value) in &changes {
            let place = place.index(stream.len());
            stream[place] = *value;
        }
        if is_cut {
            stream.truncate(cut.index(stream.len()));
        }
        let outcome = decode(stream.as_slice());
        if let Err(error) = outcome {
            prop_assert!(!error.to_string().is_empty());
        } else if let Ok(decoded) = outcome {
            for (_, _, bars) in &decoded.bars {
                prop_assert_eq!(bars.ts_event.len(), bars.volume.len());
                prop_assert_eq!(bars.close.len(), bars.instrument_id.len());
            }
        }
    }

    /// An unchanged stream loses no record, however it is compressed.
    #[test]
    fn good_streams_are_read_whole(version in 1_u8..=3, records in any_records()) {
        let plain = file(version, &records);
        let first = read(&plain);
        let second = read(&compressed(&plain));
        prop_assert_eq!(first.records, second.records);
        prop_assert_eq!(first.bars, second.bars);
        prop_assert_eq!(first.trades, second.trades);
    }
}
