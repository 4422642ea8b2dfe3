//! DBN bytes to columns.
//!
//! [`decode`] reads a `.dbn` or `.dbn.zst` stream (versions 1 to 3) block by block, straight into
//! one vector per field. The metadata header is parsed by Databento's own `dbn` crate, whose
//! structs also give every record size and field offset used here.
//!
//! The invariant kept: no input makes this crate panic, and no input is read short in silence. A
//! stream that ends inside a zstd frame, inside the header or inside a record is an error that
//! names the place.
//!
//! # Examples
//! ```
//! let error = clustercore_dbn::decode(&b"not DBN"[..]).unwrap_err();
//! assert_eq!(error.to_string(), "this is not a DBN file");
//! ```

mod columns;
mod decode;
mod error;
mod layout;
mod stream;

pub use columns::{BarColumns, DefinitionColumns, MappingColumns, TradeColumns};
pub use dbn::Metadata;
pub use decode::{Decoded, decode, decode_file};
pub use error::{Error, Result};
