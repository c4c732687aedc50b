//! A network that is worse than any wire.

use crate::Lan;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// In Python: this workspace has no unsafe code, and there is no safe call for a TAP device.
const SWITCH: &str = r#"
import ctypes, fcntl, heapq, os, random, select, struct, sys, time
libc, chance = ctypes.CDLL(None, use_errno=True), random.Random(int(sys.argv[1]))
lose, delay, jitter, double, damage = (float(x) for x in sys.argv[2:7])
taps = []
for ns in sys.argv[7:]:
    at = os.open('/run/netns/' + ns, os.O_RDONLY)
    assert libc.setns(at, 0x40000000) == 0, ns
    tap = os.open('/dev/net/tun', os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', b'eth1', 0x1002))
    taps.append(tap)
print('ready', flush=True)
queue, number = [], 0
while True:
    wait = max(0, queue[0][0] - time.monotonic()) if queue else 5
    for tap in select.select(taps, [], [], wait)[0]:
        for _ in range(64):
            try: frame = os.read(tap, 4096)
            except BlockingIOError: break
            for other in taps:
                if other == tap or chance.random() < lose: continue
                for _ in range(2 if chance.random() < double else 1):
                    sent = bytearray(frame)
                    if chance.random() < damage: sent[chance.randrange(14, len(sent))] ^= 1 << chance.randrange(8)
                    number += 1
                    at = time.monotonic() + delay + jitter * chance.random()
                    heapq.heappush(queue, (at, number, other, bytes(sent)))
    while queue and queue[0][0] <= time.monotonic():
        _, _, tap, frame = heapq.heappop(queue)
        try: os.write(tap, frame)
        except OSError: pass
"#;

/// A switch that loses, delays, reorders, doubles and damages frames, by the numbers of a seed. It takes the
/// place of a [`Lan`]'s own: hosts have an `eth1` on it, and their `eth0` is down.
pub struct BadSwitch(Child);

impl BadSwitch {
    /// `how`: the part of the frames that is lost; seconds of delay, and of what varies in it; the parts of
    /// the frames that are doubled and damaged. The hosts get 10.79.0.1/24, .2 and so on.
    pub fn new(lan: &Lan, names: &[&str], how: &[String]) -> BadSwitch {
        let mut command = Command::new("python3");
        command.args(["-c", SWITCH, "7"]).args(how).args(names.iter().map(|n| lan.ns(n)));
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let switch = BadSwitch(child);
        assert_eq!(line, "ready\n");
        for (i, name) in names.iter().enumerate() {
            lan.on(name, &["link", "set", "eth0", "down"]);
            lan.on(name, &["address", "add", &format!("10.79.0.{}/24", i + 1), "dev", "eth1"]);
            // Room for a burst while the switch is busy: what is lost is lost by its numbers only.
            lan.on(name, &["link", "set", "eth1", "txqueuelen", "10000"]);
            lan.on(name, &["link", "set", "eth1", "up"]);
        }
        switch
    }
}

impl Drop for BadSwitch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
