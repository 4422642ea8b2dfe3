//! Bytes of a file, decompressed where they are compressed, in blocks that fit the cache.

use std::io::{BufRead, Chain, Cursor, Read};

use crate::error::{Error, Result};

/// Bytes decompressed at a time: one zstd block, so that they are read while they are in the cache.
const BLOCK_BYTES: usize = 128 * 1024;
/// Room before a block for the start of a record that the block before it ended with. The length
/// byte counts words of four bytes, so no record is longer.
const HEADROOM_BYTES: usize = 1024;
/// Blocks after which the size of the whole is estimated: columns reserved once are not copied.
const BLOCKS_TO_ESTIMATE: u64 = 4;

/// Bytes by which a stream is told apart.
const HEAD_BYTES: u64 = 12;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// Last three bytes of the sixteen magic numbers of a skippable zstd frame.
const SKIPPABLE_MAGIC_TAIL: [u8; 3] = [0x2A, 0x4D, 0x18];

enum Input<'a, R: BufRead> {
    Plain(R),
    Zstd(Box<zstd::stream::read::Decoder<'a, R>>),
}

/// A reader that counts what was taken from it.
struct Counted<R> {
    reader: R,
    taken: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, space: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(space)?;
        self.taken += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.reader.consume(count);
        self.taken += count as u64;
    }
}

/// A stream of DBN bytes.
pub(crate) struct Stream<'a, R: BufRead> {
    input: Input<'a, Counted<Chain<Cursor<Vec<u8>>, R>>>,
    given: u64,
    /// A fault seen behind bytes that were still good; told after them.
    fault: Option<Error>,
}

impl<R: BufRead> Stream<'_, R> {
    /// Opens the stream by its first bytes.
    ///
    /// # Errors
    /// Where there is no byte, or the bytes are those of a legacy DBZ file.
    pub(crate) fn open(mut reader: R) -> Result<Self> {
        let mut head = Vec::new();
        reader
            .by_ref()
            .take(HEAD_BYTES)
            .read_to_end(&mut head)
            .map_err(|error| Error::Io(error.to_string()))?;
        if head.is_empty() {
            return Err(Error::Empty);
        }
        let skippable = head.get(1..4) == Some(&SKIPPABLE_MAGIC_TAIL[..]);
        if skippable && head.get(8..11) == Some(b"DBZ") {
            return Err(Error::Dbz);
        }
        let compressed = skippable || head.starts_with(&ZSTD_MAGIC);
        let reader = Counted {
            reader: Cursor::new(head).chain(reader),
            taken: 0,
        };
        let input = if compressed {
            let decoder = zstd::stream::read::Decoder::with_buffer(reader)
                .map_err(|error| Error::Io(error.to_string()))?;
            Input::Zstd(Box::new(decoder))
        } else {
            Input::Plain(reader)
        };
        Ok(Self {
            input,
            given: 0,
            fault: None,
        })
    }

    /// Takes exactly `count` bytes, or as many as there are.
    ///
    /// # Errors
    /// Where the file cannot be read, or the zstd stream is damaged or cut off.
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            // In steps, so that a length that is a lie allocates no more than there is.
            let before = taken.len();
            taken.resize(count.min(before + BLOCK_BYTES), 0);
            let space = taken.get_mut(before..).unwrap_or_default();
            let wanted = space.len();
            let read = self.fill(space)?;
            taken.truncate(before + read);
            if read < wanted {
                break;
            }
        }
        Ok(taken)
    }

    /// Fills the space, and returns fewer bytes only at the end of the stream or before a fault.
    fn fill(&mut self, space: &mut [u8]) -> Result<usize> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let mut filled = 0;
        while filled < space.len() {
            match self.read(space.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(fault) if filled == 0 => return Err(fault),
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            }
        }
        self.given += filled as u64;
        Ok(filled)
    }

    /// Estimates how many bytes the stream will still give, when its source has `source_bytes`.
    fn estimate(&self, source_bytes: u64) -> u64 {
        let taken = match &self.input {
            Input::Plain(reader) => reader.taken,
            Input::Zstd(decoder) => decoder.get_ref().taken,
        };
        let left = source_bytes.saturating_sub(taken);
        let ratio = self.given as f64 / taken.max(1) as f64;
        // A little more than the ratio so far says: what is reserved and not used costs nothing.
        (left as f64 * ratio * 1.1) as u64
    }

    fn read(&mut self, space: &mut [u8]) -> Result<usize> {
        loop {
            let plain = matches!(self.input, Input::Plain(_));
            let outcome = match &mut self.input {
                Input::Plain(reader) => reader.read(space),
                Input::Zstd(decoder) => decoder.read(space),
            };
            return match outcome {
                Ok(count) => Ok(count),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if plain || error.raw_os_error().is_some() => {
                    Err(Error::Io(error.to_string()))
                }
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Err(Error::ZstdTruncated { record: 0 })
                }
                Err(error) => Err(Error::ZstdCorrupt {
                    record: 0,
                    reason: error.to_string(),
                }),
            };
        }
    }
}

/// What takes the bytes: it is given each stretch of the stream with what it left of the one before
/// in front, and returns how much of it was used.
pub(crate) trait Sink {
    /// Takes the whole records of `bytes` and returns their length.
    fn take(&mut self, bytes: &[u8]) -> Result<usize>;
    /// Says about how many bytes are still to come.
    fn expect(&mut self, bytes: u64);
    /// Returns the number of records taken.
    fn records(&self) -> u64;
}

/// Feeds the rest of the stream to the sink and returns the bytes that it left at the end.
///
/// # Errors
/// The sink's, or the stream's, with the number of records before it.
pub(crate) fn drain<R: BufRead, S: Sink>(
    mut stream: Stream<'_, R>,
    source_bytes: Option<u64>,
    sink: &mut S,
) -> Result<Vec<u8>> {
    let mut buffer = vec![0; HEADROOM_BYTES + BLOCK_BYTES];
    let mut rest = Vec::with_capacity(HEADROOM_BYTES);
    for block in 0_u64.. {
        let space = buffer.get_mut(HEADROOM_BYTES..).unwrap_or_default();
        let filled = stream
            .fill(space)
            .map_err(|error| error.at_record(sink.records()))?;
        if filled == 0 {
            break;
        }
        feed(&mut buffer, filled, &mut rest, sink)?;
        if block == BLOCKS_TO_ESTIMATE
            && let Some(source_bytes) = source_bytes
        {
            sink.expect(stream.estimate(source_bytes));
        }
    }
    Ok(rest)
}

/// Gives `filled` bytes behind the headroom to the sink, with `rest` in front of them, and leaves in
/// `rest` what was not used.
fn feed<S: Sink>(buffer: &mut [u8], filled: usize, rest: &mut Vec<u8>, sink: &mut S) -> Result<()> {
    let start = HEADROOM_BYTES.saturating_sub(rest.len());
    if let Some(room) = buffer.get_mut(start..start + rest.len()) {
        room.copy_from_slice(rest);
    }
    let bytes = buffer
        .get(start..HEADROOM_BYTES + filled)
        .unwrap_or_default();
    let used = sink.take(bytes)?;
    rest.clear();
    rest.extend_from_slice(bytes.get(used..).unwrap_or_default());
    Ok(())
}
