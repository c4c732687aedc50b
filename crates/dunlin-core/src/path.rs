//! Names and paths, validated once as final bytes.
//!
//! A [`Name`] is one component of a path: what a directory entry may be called on Linux. Every name
//! from a peer, a disk or a user becomes a `Name` before anything else looks at it, so nothing behind
//! this file has to ask again whether a component is `..`, empty, or holds a slash.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// The longest name, in bytes (Linux `NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// The name of Dunlin's own directory. It is reserved directly under a folder's root, nowhere else.
pub const CONTROL_DIR: &[u8] = b".dunlin";

/// One path component: 1 to 255 bytes, without `/` and NUL, neither `.` nor `..`.
///
/// The bytes are kept as they are: invalid UTF-8, newlines and Unicode forms included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

/// Why bytes are not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// No byte at all.
    Empty,
    /// More than [`NAME_MAX`] bytes.
    TooLong,
    /// A `/` or a NUL byte.
    Separator,
    /// `.` or `..`.
    Dots,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "a name must not be empty",
            NameError::TooLong => "a name must not be longer than 255 bytes",
            NameError::Separator => "a name must not hold a slash or a NUL byte",
            NameError::Dots => "a name must not be '.' or '..'",
        })
    }
}

impl core::error::Error for NameError {}

impl Name {
    /// Validates `bytes` as one path component.
    pub fn new(bytes: &[u8]) -> Result<Name, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            b if b.len() > NAME_MAX => Err(NameError::TooLong),
            b if b.iter().any(|&c| c == b'/' || c == 0) => Err(NameError::Separator),
            b => Ok(Name(b.into())),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl<C> minicbor::Encode<C> for Name {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Name {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Name, minicbor::decode::Error> {
        Name::new(d.bytes()?).map_err(|_| minicbor::decode::Error::message("not a name"))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl fmt::Display for Name {
    /// Printable everywhere: valid UTF-8 without control characters as it is, the rest escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_bytes(&self.0, f)
    }
}

/// A path below a folder's root: names from the root down. Empty means the root itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The root of the folder.
    pub fn root() -> RelPath {
        RelPath(Vec::new())
    }

    /// Splits `bytes` at slashes; each component must be a [`Name`]. Empty bytes are the root.
    pub fn parse(bytes: &[u8]) -> Result<RelPath, NameError> {
        if bytes.is_empty() {
            return Ok(RelPath::root());
        }
        bytes.split(|&b| b == b'/').map(Name::new).collect::<Result<_, _>>().map(RelPath)
    }

    /// This path with one more component.
    #[must_use]
    pub fn join(&self, name: &Name) -> RelPath {
        let mut names = self.0.clone();
        names.push(name.clone());
        RelPath(names)
    }

    /// The path without its last component, and that component; `None` for the root.
    pub fn split_last(&self) -> Option<(RelPath, &Name)> {
        let (last, parents) = self.0.split_last()?;
        Some((RelPath(parents.to_vec()), last))
    }

    /// The components from the root down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components joined with slashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b'/');
            }
            out.extend_from_slice(name.as_bytes());
        }
        out
    }
}

impl From<Vec<Name>> for RelPath {
    fn from(names: Vec<Name>) -> RelPath {
        RelPath(names)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_bytes(&self.to_bytes(), f)
    }
}

/// Bytes from anywhere (a path, a device's name, a message), shown as a [`Name`] is: harmless to a
/// terminal or a log, whatever they hold.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_bytes(self.0, f)
    }
}

/// Writes bytes so that no terminal or log is steered by them: control characters and what is not
/// UTF-8 are escaped, the rest stands as it is.
fn fmt_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let steers =
                matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if c.is_control() || steers {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        for b in chunk.invalid() {
            write!(f, "\\x{b:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn only_single_components_are_names() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b" ", b"\n", b"\xff", b"-rf", &[b'x'; 255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn names_are_shown_harmless() {
        assert_eq!(Name::new(b"a\x1b[31m\xff\n").unwrap().to_string(), "a\\u{1b}[31m\\xff\\u{a}");
        assert_eq!(Name::new("grüße".as_bytes()).unwrap().to_string(), "grüße");
        assert_eq!(Name::new("a\u{202e}b".as_bytes()).unwrap().to_string(), "a\\u{202e}b");
    }

    #[test]
    fn paths_parse_and_join() {
        let p = RelPath::parse(b"a/b").unwrap();
        assert_eq!(p.to_bytes(), b"a/b");
        assert_eq!(p.split_last().unwrap().0.to_bytes(), b"a");
        assert!(RelPath::parse(b"a//b").is_err());
        assert!(RelPath::parse(b"../b").is_err());
        assert!(RelPath::parse(b"").unwrap().is_root());
    }
}
