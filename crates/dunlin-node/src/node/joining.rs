//! Invitations: making them, honouring them, using them.

use super::{Shared, cannot, opening};
use crate::config::{Config, Invite};
use crate::control::{ApiError, JoinRequest as Asked};
use crate::folder::{Folder, lock, verify};
use crate::home::random_bytes;
use crate::net::connection::Connection;
use crate::session::{CODE_PROTOCOL, CODE_STRANGER};
use crate::transfer::{StreamError, read_frame, send_frame};
use dunlin_core::ids::{DeviceId, FolderId, NodeId};
use dunlin_core::members::{ROLE_ALL, members};
use dunlin_core::message::{
    ALPN_JOIN, Claim, DEVICE_NAME_MAX, JoinAnswer, JoinRequest, Statement, read, signed_bytes,
};
use dunlin_core::ticket::{Ticket, TicketError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An invitation is good for this long, in seconds.
const VALID_S: u64 = 24 * 3600;
/// Invitations kept open at once; the oldest go.
const INVITES_MAX: usize = 256;
/// How long the inviter is looked for.
const REACH: Duration = Duration::from_secs(15);
/// Guests at once; when more come, the oldest go.
const GUESTS_MAX: usize = 64;
/// How long a guest may take to say what it wants.
const GUEST_WAIT: Duration = Duration::from_secs(5);

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn random_16() -> Result<[u8; 16], ApiError> {
    let random = random_bytes().map_err(|e| cannot("draw random numbers", e))?;
    Ok(std::array::from_fn(|i| random[i]))
}

/// Signs that `device` is a member.
fn admit_statement(
    folder: FolderId,
    device: DeviceId,
    name: &str,
    by: &iroh::SecretKey,
    after: &[Statement],
) -> Result<Statement, ApiError> {
    let last = after
        .last()
        .map(|s| blake3::hash(&s.claim))
        .map(|h| NodeId(std::array::from_fn(|i| h.as_bytes()[i])));
    let claim = Claim {
        folder,
        device,
        name: name.to_owned(),
        by: DeviceId(*by.public().as_bytes()),
        role: ROLE_ALL,
        after: last.into_iter().collect(),
        release: None,
    };
    let claim = minicbor::to_vec(&claim).map_err(|e| cannot("write a statement", e))?;
    let signature = by.sign(&signed_bytes(&claim)).to_bytes().to_vec();
    Ok(Statement { claim, signature })
}

/// A new folder at `path`, with this device as its first member.
pub(super) fn create(shared: &Arc<Shared>, path: PathBuf) -> Result<Arc<Folder>, ApiError> {
    let key = iroh::SecretKey::from_bytes(&random_bytes().map_err(|e| cannot("draw random numbers", e))?);
    let id = FolderId(*key.public().as_bytes());
    let first = admit_statement(id, shared.device, &shared.name, &key, &[])?;
    let token = NodeId(random_16()?);
    let statements = vec![first];
    let config = Config::new(id, path, token, statements, false);
    opening::open_new(shared, config, Some(&key.to_bytes()))
}

/// A fresh ticket; durable before it is returned.
pub(super) fn invite(shared: &Shared, folder: &Folder) -> Result<String, ApiError> {
    let (secret, expires) = (NodeId(random_16()?), now_s() + VALID_S);
    let mut config = lock(&folder.config);
    let mut next = config.clone();
    next.invites.retain(|i| i.expires > now_s());
    if next.invites.len() >= INVITES_MAX {
        next.invites.remove(0);
    }
    next.invites.push(Invite { secret, expires, used_by: None });
    next.save(&folder.dir).map_err(|e| cannot("keep the invitation", e))?;
    *config = next;
    drop(config);
    let name = folder.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let ticket = Ticket {
        folder: folder.id,
        inviter: shared.device,
        secret,
        expires,
        addresses: shared.transport.local_addrs(),
        name,
    };
    Ok(ticket.to_text())
}

/// Answers a device that holds (or claims to hold) an invitation.
pub(super) async fn admit(shared: Arc<Shared>, conn: Connection) {
    let open = |f: &Arc<Folder>| lock(&f.config).invites.iter().any(|i| i.expires > now_s());
    if !shared.folders().iter().any(open) {
        conn.close(CODE_STRANGER, b"");
        return;
    }
    let oldest = {
        let mut guests = lock(&shared.guests);
        guests.push_back(conn.clone());
        if guests.len() > GUESTS_MAX { guests.pop_front() } else { None }
    };
    if let Some(oldest) = oldest {
        // Who holds an invitation is done in a moment, or comes again.
        oldest.close(0, b"");
    }
    match tokio::time::timeout(GUEST_WAIT, answer(&shared, &conn)).await {
        // The guest closes when it has read the answer.
        Ok(Ok(())) => {
            let _ = tokio::time::timeout(GUEST_WAIT, conn.closed()).await;
        }
        _ => conn.close(CODE_PROTOCOL, b""),
    }
    lock(&shared.guests).retain(|g| g.stable_id() != conn.stable_id());
}

async fn answer(shared: &Arc<Shared>, conn: &Connection) -> Result<(), StreamError> {
    let (mut send, mut recv) = conn.accept_bi().await.map_err(|e| StreamError::Gone(e.to_string()))?;
    let body = read_frame(&mut recv).await?.ok_or(StreamError::Protocol("no request"))?;
    let request: JoinRequest = read(&body).map_err(|_| StreamError::Protocol("no request"))?;
    let device = DeviceId(conn.remote_id());
    let answer = tokio::task::block_in_place(|| honour(shared, device, &request));
    send_frame(&mut send, &answer).await?;
    // The guest may have gone; it is a member all the same, and asks again.
    let _ = send.finish();
    if matches!(answer, JoinAnswer::Admitted { .. }) {
        if let Some(address) = conn.remote_addr() {
            shared.sighted(device, vec![address]);
        }
        shared.raise();
    }
    Ok(())
}

/// Decides on a request. An unknown folder and a wrong secret are answered alike.
fn honour(shared: &Shared, device: DeviceId, request: &JoinRequest) -> JoinAnswer {
    let refused = |why| JoinAnswer::Refused { why };
    let Some(folder) = shared.folder(&request.folder) else { return refused(0) };
    if request.name.len() > DEVICE_NAME_MAX {
        return refused(0);
    }
    let mut config = lock(&folder.config);
    let same = |i: &Invite| blake3::hash(&i.secret.0) == blake3::hash(&request.secret.0);
    let Some(at) = config.invites.iter().position(same) else { return refused(0) };
    let invite = config.invites[at].clone();
    match invite.used_by {
        Some(by) if by != device => return refused(1),
        None if invite.expires <= now_s() => return refused(2),
        _ => {}
    }
    if invite.used_by.is_none() {
        let mut next = config.clone();
        next.invites[at].used_by = Some(device);
        let by = &shared.secret;
        let Ok(statement) = admit_statement(folder.id, device, &request.name, by, &config.statements) else {
            return refused(0);
        };
        next.statements.push(statement);
        if next.save(&folder.dir).is_err() {
            return refused(0);
        }
        *config = next;
    }
    let statements = config.statements.clone();
    drop(config);
    folder.members.send_replace(members(folder.id, &statements, verify));
    JoinAnswer::Admitted { statements, name: shared.name.clone() }
}

/// Joins the folder of a ticket.
pub(super) async fn join(shared: &Arc<Shared>, asked: Asked) -> Result<Arc<Folder>, ApiError> {
    let ticket = Ticket::parse(&asked.ticket).map_err(|e| match e {
        TicketError::NotATicket => {
            ApiError::failed("this is not an invitation", "it is one line that begins with dunlin")
        }
        TicketError::Damaged => {
            ApiError::failed("the invitation is damaged", "copy the whole line once more")
        }
        TicketError::Newer => {
            ApiError::failed("the invitation was made by a newer dunlin", "update dunlin on this device")
        }
    })?;
    let path = opening::check_root(shared, &target(&asked, &ticket)?)?;
    let open = shared.folder(&ticket.folder).map(|f| f.path.clone());
    let halted = || lock(&shared.unopened).get(&ticket.folder).map(|there| there.path.clone());
    if let Some(here) = open.or_else(halted) {
        let here = opening::shown(&here);
        return Err(ApiError::failed(
            format!("this device has that folder already, at {here}"),
            "join from another device",
        ));
    }
    if shared.folders().iter().any(|f| f.path == path) {
        let what = format!("{} is a shared folder already", opening::shown(&path));
        return Err(ApiError::failed(what, "choose another directory"));
    }
    if ticket.expires <= now_s() {
        return Err(ApiError::failed(
            "the invitation has expired",
            "ask for a new one: dunlin invite on a device that has the folder",
        ));
    }
    let (answer, address) = ask_inviter(shared, &ticket).await?;
    let statements = accepted(shared, &ticket, answer)?;
    let token = NodeId(random_16()?);
    let config = Config::new(ticket.folder, path, token, statements, true);
    let folder = tokio::task::block_in_place(|| opening::open_new(shared, config, None))?;
    let mut addresses = ticket.addresses;
    addresses.extend(address);
    shared.sighted(ticket.inviter, addresses);
    Ok(folder)
}

fn target(asked: &Asked, ticket: &Ticket) -> Result<PathBuf, ApiError> {
    let path = asked.path.as_path().to_path_buf();
    if !asked.below {
        return Ok(path);
    }
    let name = dunlin_core::path::Name::new(ticket.name.as_bytes()).map_err(|_| {
        ApiError::usage("the invitation does not say what the folder is called", "name a FOLDER")
    })?;
    Ok(path.join(std::ffi::OsStr::new(&String::from_utf8_lossy(name.as_bytes()).into_owned())))
}

fn accepted(shared: &Shared, ticket: &Ticket, answer: JoinAnswer) -> Result<Vec<Statement>, ApiError> {
    let hint = "ask for a new one: dunlin invite on a device that has the folder";
    match answer {
        JoinAnswer::Refused { why: 1 } => Err(ApiError::failed("the invitation was used already", hint)),
        JoinAnswer::Refused { why: 2 } => Err(ApiError::failed("the invitation has expired", hint)),
        JoinAnswer::Refused { .. } => Err(ApiError::failed("the invitation was refused", hint)),
        JoinAnswer::Admitted { statements, .. } => {
            let all = members(ticket.folder, &statements, verify);
            if all.contains_key(&shared.device) && all.contains_key(&ticket.inviter) {
                return Ok(statements);
            }
            Err(ApiError::failed("the other device does not belong to the folder itself", hint))
        }
    }
}

/// Reaches the inviter by the ticket's addresses, or where discovery sees it.
async fn ask_inviter(
    shared: &Arc<Shared>,
    ticket: &Ticket,
) -> Result<(JoinAnswer, Option<SocketAddr>), ApiError> {
    let until = Instant::now() + REACH;
    let mut expected = shared.expect_join(ticket.inviter);
    let before = shared.pledged.load(Ordering::Relaxed);
    loop {
        let mut addresses = ticket.addresses.clone();
        addresses.extend(expected.addresses());
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let hint = "see that it is running and on the same network, then try again; the invitation is still good";
            return Err(ApiError::failed("the device that made the invitation cannot be reached", hint));
        }
        let attempt = shared.transport.connect(
            ticket.inviter.0,
            &addresses,
            ALPN_JOIN,
            left.min(Duration::from_secs(3)),
        );
        let reached = tokio::select! {
            reached = attempt => reached,
            // The addresses tried may be stale, and that takes seconds.
            () = expected.seen_but_at(&addresses) => continue,
        };
        if let Ok(conn) = reached {
            // From here on it may admit this key, whatever of the answer arrives.
            shared.pledged.store(true, Ordering::Relaxed);
            if let Ok(Ok(answer)) = tokio::time::timeout(left, ask(shared, ticket, &conn)).await {
                if let JoinAnswer::Refused { .. } = answer {
                    shared.pledged.store(before, Ordering::Relaxed);
                }
                let address = conn.remote_addr();
                conn.close(0, b"");
                return Ok((answer, address));
            }
            if let Some(crate::net::connection::Closed::ByPeer { code, .. }) = conn.close_reason()
                && code == u64::from(CODE_STRANGER)
            {
                shared.pledged.store(before, Ordering::Relaxed);
                return Ok((JoinAnswer::Refused { why: 0 }, None));
            }
        }
        let _ = tokio::time::timeout(Duration::from_millis(250), expected.seen_but_at(&addresses)).await;
    }
}

async fn ask(shared: &Shared, ticket: &Ticket, conn: &Connection) -> Result<JoinAnswer, StreamError> {
    let (mut send, mut recv) = conn.open_bi().await.map_err(|e| StreamError::Gone(e.to_string()))?;
    let request = JoinRequest { folder: ticket.folder, secret: ticket.secret, name: shared.name.clone() };
    send_frame(&mut send, &request).await?;
    let body = read_frame(&mut recv).await?.ok_or(StreamError::Protocol("no answer"))?;
    read(&body).map_err(|_| StreamError::Protocol("the answer cannot be read"))
}
