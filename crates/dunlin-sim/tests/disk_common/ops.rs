//! What is done, by chance.

use dunlin_core::path::RelPath;
use dunlin_node::disk::FileTime;
use proptest::prelude::*;

/// What is done.
#[derive(Clone, Debug)]
pub enum Op {
    List(RelPath),
    Stat(RelPath),
    Open(RelPath),
    ReadLink(RelPath),
    Create(RelPath, usize, bool),
    OpenWrite(RelPath, usize, bool),
    SetLen(u64),
    HeldMode(u16),
    HeldMtime(FileTime),
    Let,
    Mkdir(RelPath, u16),
    Symlink(RelPath),
    Rename(RelPath, RelPath, bool),
    Unlink(RelPath),
    Rmdir(RelPath),
    SetMode(RelPath, u16),
    SetMtime(RelPath, FileTime),
    SyncFile(RelPath),
    SyncDir(RelPath),
    Watch(RelPath, u8),
    User(UserOp),
}

/// What a user does.
#[derive(Clone, Debug)]
pub enum UserOp {
    Create(RelPath, usize),
    Overwrite(RelPath, usize),
    WriteAt(RelPath, u64, usize),
    Append(RelPath, usize),
    Truncate(RelPath, u64),
    Save(RelPath, usize),
    Rename(RelPath, RelPath),
    Exchange(RelPath, RelPath),
    Unlink(RelPath),
    Rmdir(RelPath),
    RemoveAll(RelPath),
    Mkdir(RelPath),
    Symlink(RelPath),
    Chmod(RelPath, u16),
    HardLink(RelPath, RelPath),
    Fifo(RelPath),
    Read(RelPath),
}

fn path() -> impl Strategy<Value = RelPath> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let names = |n| prop::collection::vec(name.clone(), n);
    let path = prop_oneof![1 => names(0..1), 9 => names(1..2), 8 => names(2..3), 3 => names(3..4)];
    path.prop_map(|names| RelPath::parse(names.join("/").as_bytes()).unwrap())
}

fn mode() -> impl Strategy<Value = u16> {
    prop_oneof![6 => Just(0o755), 2 => Just(0o700), 1 => Just(0o555), 1 => Just(0o4644), 1 => 0u16..0o1000]
}

/// Few names, so that they meet all the time.
pub fn op() -> impl Strategy<Value = Op> {
    let len = 0usize..9000;
    let time = (-9i64..9, prop_oneof![9 => 0u32..1_000_000_000, 1 => Just(1_000_000_000)]);
    let time = time.prop_map(|(secs, nanos)| FileTime { secs, nanos });
    prop_oneof![
        2 => path().prop_map(Op::List),
        2 => path().prop_map(Op::Stat),
        2 => path().prop_map(Op::Open),
        1 => path().prop_map(Op::ReadLink),
        3 => (path(), len.clone(), any::<bool>()).prop_map(|(p, n, hold)| Op::Create(p, n, hold)),
        2 => (path(), len, any::<bool>()).prop_map(|(p, n, hold)| Op::OpenWrite(p, n, hold)),
        1 => (0u64..20_000).prop_map(Op::SetLen),
        1 => mode().prop_map(Op::HeldMode),
        1 => time.clone().prop_map(Op::HeldMtime),
        1 => Just(Op::Let),
        4 => (path(), mode()).prop_map(|(p, m)| Op::Mkdir(p, m)),
        1 => path().prop_map(Op::Symlink),
        5 => (path(), path(), any::<bool>()).prop_map(|(a, b, x)| Op::Rename(a, b, x)),
        2 => path().prop_map(Op::Unlink),
        2 => path().prop_map(Op::Rmdir),
        2 => (path(), mode()).prop_map(|(p, m)| Op::SetMode(p, m)),
        1 => (path(), time).prop_map(|(p, t)| Op::SetMtime(p, t)),
        1 => path().prop_map(Op::SyncFile),
        1 => path().prop_map(Op::SyncDir),
        4 => (path(), 0u8..6).prop_map(|(p, k)| Op::Watch(p, k)),
        20 => user_op().prop_map(Op::User),
    ]
}

fn user_op() -> impl Strategy<Value = UserOp> {
    let len = 0usize..9000;
    prop_oneof![
        3 => (path(), len.clone()).prop_map(|(p, n)| UserOp::Create(p, n)),
        1 => (path(), len.clone()).prop_map(|(p, n)| UserOp::Overwrite(p, n)),
        1 => (path(), 0u64..10_000, len.clone()).prop_map(|(p, at, n)| UserOp::WriteAt(p, at, n)),
        1 => (path(), len.clone()).prop_map(|(p, n)| UserOp::Append(p, n)),
        1 => (path(), 0u64..20_000).prop_map(|(p, n)| UserOp::Truncate(p, n)),
        2 => (path(), len).prop_map(|(p, n)| UserOp::Save(p, n)),
        4 => (path(), path()).prop_map(|(a, b)| UserOp::Rename(a, b)),
        1 => (path(), path()).prop_map(|(a, b)| UserOp::Exchange(a, b)),
        1 => path().prop_map(UserOp::Unlink),
        1 => path().prop_map(UserOp::Rmdir),
        1 => path().prop_map(UserOp::RemoveAll),
        3 => path().prop_map(UserOp::Mkdir),
        1 => path().prop_map(UserOp::Symlink),
        1 => (path(), mode()).prop_map(|(p, m)| UserOp::Chmod(p, m)),
        2 => (path(), path()).prop_map(|(a, b)| UserOp::HardLink(a, b)),
        1 => path().prop_map(UserOp::Fifo),
        1 => path().prop_map(UserOp::Read),
    ]
}

impl UserOp {
    /// The paths it names.
    pub fn paths(&self) -> Vec<&RelPath> {
        use UserOp::*;
        match self {
            Create(p, _)
            | Overwrite(p, _)
            | WriteAt(p, ..)
            | Append(p, _)
            | Truncate(p, _)
            | Save(p, _)
            | Unlink(p)
            | Rmdir(p)
            | RemoveAll(p)
            | Mkdir(p)
            | Symlink(p)
            | Chmod(p, _)
            | Fifo(p)
            | Read(p) => {
                vec![p]
            }
            Rename(a, b) | Exchange(a, b) | HardLink(a, b) => vec![a, b],
        }
    }
}
