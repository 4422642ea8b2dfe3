//! What can be wrong with a DBN stream, as data: the place, what stood there, what may stand there.

/// The result of reading DBN.
pub type Result<T> = std::result::Result<T, Error>;

/// A DBN stream that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused the file.
    #[error("the file cannot be read: {0}")]
    Io(String),
    /// There is not a single byte.
    #[error("the file is empty")]
    Empty,
    /// Neither DBN nor anything that preceded it.
    #[error("this is not a DBN file")]
    NotDbn {
        /// The first bytes, printable.
        found: String,
    },
    /// A legacy DBZ file.
    #[error(
        "this is a DBZ file, the format before DBN; convert it with Databento's `dbn` command \
         (`dbn file.dbz --dbn --zstd -o file.dbn.zst`) or download it again as DBN"
    )]
    Dbz,
    /// Records without the metadata header.
    #[error(
        "this is a DBN fragment: records without the metadata header that names version, schema \
         and symbols; pass the complete .dbn file as it was downloaded"
    )]
    Fragment,
    /// A version that this crate does not read.
    #[error("DBN version is not supported")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The metadata header is malformed.
    #[error("the DBN metadata header is damaged: {0}")]
    Metadata(String),
    /// The stream ends inside the metadata header.
    #[error("the file is cut off inside its metadata header")]
    MetadataTruncated {
        /// Bytes of the header that are there.
        found: u64,
        /// Bytes that it states.
        expected: u64,
    },
    /// The zstd stream ends inside a frame.
    #[error("the zstd stream is cut off: the file is incomplete, download or copy it again")]
    ZstdTruncated {
        /// Whole records before the cut.
        record: u64,
    },
    /// The zstd stream is not valid.
    #[error("the zstd stream is damaged: {reason}")]
    ZstdCorrupt {
        /// Whole records before the damage.
        record: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// The stream ends inside a record.
    #[error("the file is cut off inside a record")]
    RecordTruncated {
        /// Index of the record.
        record: u64,
        /// Bytes of it that are there.
        found: usize,
        /// Bytes that it states.
        expected: usize,
    },
    /// The length byte does not fit the record type.
    #[error("wrong record length for {kind}")]
    RecordLength {
        /// Index of the record.
        record: u64,
        /// Name of the record type.
        kind: &'static str,
        /// Bytes by the length byte.
        found: usize,
        /// Bytes for this type and version.
        expected: usize,
    },
    /// A record type that DBN does not define.
    #[error("unknown record type")]
    RecordType {
        /// Index of the record.
        record: u64,
        /// The type byte.
        found: u8,
    },
    /// A field holds a value that cannot be used.
    #[error("{problem}")]
    Value {
        /// Index of the record.
        record: u64,
        /// Name of the field.
        column: &'static str,
        /// What is wrong with it.
        problem: &'static str,
        /// The value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl Error {
    /// Puts the number of records before a fault of the stream into it.
    pub(crate) fn at_record(mut self, index: u64) -> Self {
        if let Self::ZstdTruncated { record } | Self::ZstdCorrupt { record, .. } = &mut self {
            *record = index;
        }
        self
    }

    /// Returns the index of the record, where the fault has one.
    #[must_use]
    pub fn record(&self) -> Option<u64> {
        match self {
            Self::ZstdTruncated { record }
            | Self::ZstdCorrupt { record, .. }
            | Self::RecordTruncated { record, .. }
            | Self::RecordLength { record, .. }
            | Self::RecordType { record, .. }
            | Self::Value { record, .. } => Some(*record),
            _ => None,
        }
    }

    /// Returns the name of the field, where the fault lies in one.
    #[must_use]
    pub fn column(&self) -> Option<&'static str> {
        match self {
            Self::Value { column, .. } => Some(column),
            Self::RecordLength { .. } => Some("length"),
            Self::RecordType { .. } => Some("rtype"),
            _ => None,
        }
    }

    /// Returns what stood there.
    #[must_use]
    pub fn found(&self) -> Option<String> {
        match self {
            Self::Empty => Some("0 bytes".to_owned()),
            Self::NotDbn { found } | Self::Value { found, .. } => Some(found.clone()),
            Self::Version { found } => Some(format!("version {found}")),
            Self::MetadataTruncated { found, .. } => Some(format!("{found} bytes")),
            Self::ZstdTruncated { record } | Self::ZstdCorrupt { record, .. } => {
                Some(format!("{record} whole records"))
            }
            Self::RecordTruncated { found, .. } | Self::RecordLength { found, .. } => {
                Some(format!("{found} bytes"))
            }
            Self::RecordType { found, .. } => Some(format!("0x{found:02X}")),
            _ => None,
        }
    }

    /// Returns what may stand there.
    #[must_use]
    pub fn expected(&self) -> Option<String> {
        match self {
            Self::Empty | Self::NotDbn { .. } => {
                Some("a file that starts with \"DBN\", plain or in zstd".to_owned())
            }
            Self::Version { .. } => Some("version 1, 2 or 3".to_owned()),
            Self::MetadataTruncated { expected, .. } => Some(format!("{expected} bytes")),
            Self::ZstdTruncated { .. } | Self::ZstdCorrupt { .. } => {
                Some("a complete zstd frame".to_owned())
            }
            Self::RecordTruncated { expected, .. } | Self::RecordLength { expected, .. } => {
                Some(format!("{expected} bytes"))
            }
            Self::RecordType { .. } => Some("a record type of DBN 1 to 3".to_owned()),
            Self::Value { expected, .. } => Some((*expected).to_owned()),
            _ => None,
        }
    }
}
