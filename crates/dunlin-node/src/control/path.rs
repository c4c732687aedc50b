//! Paths in JSON. A path is bytes, JSON strings are Unicode: `path` holds the text, and for the few
//! paths that are not UTF-8, `path_hex` beside it holds the exact bytes.

use data_encoding::HEXLOWER;
use dunlin_core::path::Escaped;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A path of any bytes. In JSON it is the key `path`; where the bytes are not UTF-8, `path` is for
/// reading only (each wrong sequence is U+FFFD) and `path_hex` is the path as lower-case hex.
///
/// Meant to be flattened into the object it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct AnyPath(pub PathBuf);

#[derive(Clone, Serialize, Deserialize)]
struct Fields {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

impl AnyPath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }
}

/// A path for pasting into a shell; `None` where that cannot be written so that no terminal is steered by it.
pub fn for_shell(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().as_bytes();
    let plain = Escaped(bytes).to_string();
    if plain.as_bytes() != bytes {
        return None;
    }
    let harmless = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    let quoted = || format!("'{}'", plain.replace('\'', r"'\''"));
    Some(if plain.chars().all(harmless) { plain.clone() } else { quoted() })
}

impl From<PathBuf> for AnyPath {
    fn from(path: PathBuf) -> AnyPath {
        AnyPath(path)
    }
}

impl From<Vec<u8>> for AnyPath {
    fn from(bytes: Vec<u8>) -> AnyPath {
        AnyPath(OsString::from_vec(bytes).into())
    }
}

impl From<AnyPath> for Fields {
    fn from(path: AnyPath) -> Fields {
        match path.0.into_os_string().into_string() {
            Ok(path) => Fields { path, path_hex: None },
            Err(bytes) => Fields {
                path: bytes.to_string_lossy().into_owned(),
                path_hex: Some(HEXLOWER.encode(bytes.as_bytes())),
            },
        }
    }
}

impl TryFrom<Fields> for AnyPath {
    type Error = &'static str;
    fn try_from(fields: Fields) -> Result<AnyPath, &'static str> {
        let bytes = match fields.path_hex {
            None => fields.path.into_bytes(),
            Some(hex) => HEXLOWER.decode(hex.as_bytes()).map_err(|_| "path_hex is not lower-case hex")?,
        };
        if bytes.contains(&0) {
            return Err("a path must not hold a NUL byte");
        }
        Ok(AnyPath::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back_and_usual_ones_are_plain() {
        let json = |bytes: &[u8]| serde_json::to_string(&AnyPath::from(bytes.to_vec())).unwrap();
        assert_eq!(json("/grüße\n".as_bytes()), r#"{"path":"/grüße\n"}"#);
        assert_eq!(json(b"/a\xff"), r#"{"path":"/a�","path_hex":"2f61ff"}"#);
        for bytes in [&b"/a"[..], b"/a\xff\xfe", b"", b"\n", "a\u{fffd}".as_bytes()] {
            assert_eq!(serde_json::from_str::<AnyPath>(&json(bytes)).unwrap().as_bytes(), bytes);
        }
    }

    #[test]
    fn what_is_pasted_into_a_shell_is_one_word_and_steers_nothing() {
        let word = |path: &[u8]| for_shell(AnyPath::from(path.to_vec()).as_path());
        assert_eq!(word("/home/adä/Sync".as_bytes()).as_deref(), Some("/home/adä/Sync"));
        assert_eq!(word(b"/a'b;rm -rf $(x)").as_deref(), Some(r"'/a'\''b;rm -rf $(x)'"));
        assert_eq!((word(b"/a\x1b[31m"), word(b"/a\xff"), word(b"/a\n")), (None, None, None));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for bad in [r#"{"path":"a\u0000"}"#, r#"{"path":"a","path_hex":"zz"}"#, r#"{}"#, r#"{"path":1}"#] {
            assert!(serde_json::from_str::<AnyPath>(bad).is_err(), "{bad}");
        }
    }
}
