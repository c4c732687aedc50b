#!/usr/bin/env python3
"""Executable model of the replicated tree: what every device must agree on, in a page. No disk, no network, no clock.

A node's state is a causal context (vec: incarnation -> highest counter seen *of this node*) and four dot stores:
  place    {dot: (rank, parent, name, earlier place)}   where it is
  content  {dot: (rank, kind, value)}                   what it is; several = concurrent edits
  meta     left out here; it works like place
  gone     {dot: vec at the delete}                     deletes
merge() is the standard causal merge (Almeida, Shoker, Baquero 2016): commutative, associative, idempotent. It decides nothing.
view() is a pure function of the merged states; it decides everything and writes nothing.

Where it departs from the first model, and why:
  - Hashes are BLAKE3 over bytes, each kind of input with a prefix of its own: the core must come to the same ids and ties, byte for byte.
  - An incarnation is 16 bytes and a dot (incarnation, counter), compared in that order: so will the core's.
  - A derived name keeps the extension, so that a conflict copy still opens with its program, and never exceeds 255 bytes.
  - Of several loops the one with the youngest placement of all is cut first (before: the one reached first from the smallest id): a rule
    that needs no walk in id order, and so can be computed from the loops alone.
  - What a cut loop leaves dead, with nothing living below, is not kept (before: ancestors were kept as of before the cuts, and such a ghost
    made the node above it show as an empty directory that nobody could delete).
  - A move also writes, each under a dot of its own, the shown place of every node on the ways to the root from its old and its new place
    whose placement was cut. Else the move closes a loop with that placement and may itself be cut (undone, before the user's eyes), or
    opens the loop, and the placement that was cut shows again.
  - A link is a third kind; wherever a file is meant as "not a directory", a link is too.
  - Equals are ordered by bytes, never by how a language prints a value; a subtree is deleted in one stated order, since each delete takes a dot.

Run it:  tree.py [seeds [first]]      checks convergence, merge laws, and that no content a user wrote and nobody replaced is missing
         tree.py --record N FILE      writes N histories as text, for the core's tests; README.md says what each line means
         tree.py --replay FILE        reads such a file back and checks it, by nothing but its text
"""
import functools, random, re, struct, sys
ROOT = bytes(16)

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = [tuple(range(16))]                                # where each of the seven rounds finds its words
for _ in range(6): ORDER.append(tuple(ORDER[-1][i] for i in (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)))
MIX = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))

@functools.lru_cache(1 << 18)
def blake3(data):
    """Plain BLAKE3 of at most one chunk (1024 bytes), all that is needed here."""
    assert len(data) <= 1024; M = 0xFFFFFFFF; cv = IV; last = max(0, (len(data) - 1) // 64)
    for b in range(last + 1):
        block = data[64 * b:64 * b + 64]; words = struct.unpack("<16I", block.ljust(64, b"\0"))
        s = [*cv, *IV[:4], 0, 0, len(block), (b == 0) | (b == last) * (2 | 8)]      # flags: chunk start; chunk end and root
        for order in ORDER:
            for j, (a, b_, c, d) in enumerate(MIX):
                w, x, y, z = s[a], s[b_], s[c], s[d]
                w = (w + x + words[order[2 * j]]) & M; z ^= w; z = (z >> 16 | z << 16) & M; y = (y + z) & M; x ^= y; x = (x >> 12 | x << 20) & M
                w = (w + x + words[order[2 * j + 1]]) & M; z ^= w; z = (z >> 8 | z << 24) & M; y = (y + z) & M; x ^= y; x = (x >> 7 | x << 25) & M
                s[a], s[b_], s[c], s[d] = w, x, y, z
        cv = tuple(s[i] ^ s[i + 8] for i in range(8))
    return struct.pack("<8I", *cv)

def dot_bytes(dot): return dot[0] + struct.pack("<Q", dot[1])
def named(parent, name): return parent + struct.pack("<H", len(name)) + name
def node_id(parent, name, n): return parent[2:4] + blake3(b"dunlin node\0" + parent + struct.pack("<I", n) + name)[:14]   # siblings begin alike
def split_id(n, dot): return n[:2] + blake3(b"dunlin split\0" + n + dot_bytes(dot))[:14]      # a version that lost its name becomes a node of its own
def inc_id(name): return blake3(b"dunlin inc\0" + name.encode())[:16]
def copy_tail(n, dot): return blake3(b"dunlin copy\0" + n + dot_bytes(dot)).hex()
def file_tail(n): return blake3(b"dunlin file\0" + n).hex()
def dir_tail(n): return blake3(b"dunlin dir\0" + n).hex()

@functools.lru_cache(1 << 16)
def value_hash(v):
    """What orders equals of one rank: v is a content (kind, value) or a place (parent, name, earlier)."""
    if len(v) == 3: return blake3(b"dunlin place\0" + named(*v[:2]) + (b"\1" + named(*v[2]) if v[2] else b"\0"))
    kind, value = v                                       # a file's value stands for the file's bytes, a link's is its text
    return blake3(b"dunlin value\0" + (b"\1" if kind == "dir" else b"\2" + blake3(value.encode()) + struct.pack("<Q", len(value.encode())) if kind == "file" else b"\3" + value.encode()))

def derive(name, tail, k):
    """The name of what lost its name: stem~conflict-tail.ext, at most 255 bytes."""
    e = name.rfind(b"."); e = e if e > 0 and 2 <= len(name) - e <= 16 else len(name); stem, ext = name[:e], name[e:]
    if len(name) + 10 + k > 255:                          # too long: a shorter stem, and so much of the tail that stems cut alike do not clash
        k = max(k, 32); cut = 255 - 10 - k - len(ext)
        while cut and stem[cut] & 0xC0 == 0x80: cut -= 1  # never inside a UTF-8 sequence
        stem = stem[:cut]
    return stem + b"~conflict-" + tail[:k].encode() + ext

def covers(vec, dot): return vec.get(dot[0], 0) >= dot[1]

class State:
    __slots__ = ("vec", "place", "content", "gone")
    def __init__(self, vec=None, place=None, content=None, gone=None): self.vec, self.place, self.content, self.gone = vec or {}, place or {}, content or {}, gone or {}
    def copy(self): return State(dict(self.vec), dict(self.place), dict(self.content), dict(self.gone))
    def key(self): return tuple(sorted((repr(k), repr(sorted(v.items()) if isinstance(v, dict) else v)) for d in (self.vec, self.place, self.content, self.gone) for k, v in d.items()))

def merge(a, b):
    """Keep what both hold, and what one holds and the other has not seen."""
    keep = lambda x, y, yv: {d: v for d, v in x.items() if d in y or not covers(yv, d)}
    both = lambda x, y: {**keep(x, y, b.vec), **keep(y, x, a.vec)}
    return State({k: max(a.vec.get(k, 0), b.vec.get(k, 0)) for k in {*a.vec, *b.vec}}, both(a.place, b.place), both(a.content, b.content), both(a.gone, b.gone))

def showing(s):
    """The versions that no delete took away: one that a delete had seen comes back only with a move that the delete had not seen (to write
    something else at the same path, even where a directory is created anew, is no reason to bring back what was deleted)."""
    outlived = lambda v: any(p[3] and not covers(v, d) for d, p in s.place.items())
    return {d: c for d, c in s.content.items() if all(outlived(v) or not covers(v, d) for v in s.gone.values())}
def alive(s): return bool(showing(s))                     # edit and move beat delete
def weight(kv): return (kv[1][0], value_hash(kv[1][1:]), kv[0])   # rank, then a hash, then the dot: total
def top(store): return max(store.items(), key=weight)

def settled(nodes):
    """The living nodes, and node -> [parent, name, …]: where each node that is shown is placed once no loop is left."""
    live = {n for n, s in nodes.items() if alive(s)}; where = {}
    def settle(n):
        d, (rank, parent, name, earlier) = top(nodes[n].place); where[n] = [parent, name, (rank, d), earlier]
    todo = list(live)
    while todo:                                           # ancestors of the living are kept
        n = todo.pop()
        if n in where or n == ROOT: continue
        settle(n); todo.append(where[n][0])
    while True:                                           # concurrent moves may close loops: cut the youngest placement in any of them, until none is left
        looped = set(); done = set()
        for n in where:
            seen = []; x = n
            while x != ROOT and x not in done and x not in seen: seen.append(x); x = where[x][0]
            if x in seen: looped.update(seen[seen.index(x):])
            done.update(seen)
        if not looped: break
        c = max(looped, key=lambda n: where[n][2]); e = where[c][3]
        if e and e[0] != where[c][0] and (e[0] == ROOT or e[0] in where): where[c][:2] = e; where[c][3] = None
        else: where[c][0] = ROOT; where[c][3] = None
    kept = set()                                          # a cut may leave dead nodes with nothing living below: those are no more
    for n in live:
        while n != ROOT and n not in kept: kept.add(n); n = where[n][0]
    return live, {n: w for n, w in where.items() if n in kept}

def view(nodes):
    """path (tuple of names) -> (node, content dot, kind, value); a dot of None is a directory kept only for what lives in it."""
    live, where = settled(nodes); kids = {}
    for n, w in where.items(): kids.setdefault(w[0], []).append(n)
    out = {}
    def lay(parent, path):
        wanted = []                                       # (name, is not a directory, how far from the top, node, dot, what the derived name hangs on)
        for n in kids.get(parent, []):
            s = nodes[n]; name = where[n][1]; isdir = n in kids
            cs = sorted(showing(s).items(), key=weight, reverse=True)
            cs = [c for i, c in enumerate(cs) if c[1][1:] not in [x[1][1:] for x in cs[:i]]]     # equal content is no conflict
            if isdir or any(v[1] == "dir" for _, v in cs): wanted.append((name, 0, 0, n, next((d for d, v in cs if v[1] == "dir"), None), dir_tail(n)))
            for i, (d, v) in enumerate(c for c in cs if c[1][1] != "dir"): wanted.append((name, 1, i if not isdir else i + 1, n, d, copy_tail(n, d) if i else file_tail(n)))
        used = {w[0] for w in wanted}; taken = set()
        for name, notdir, i, n, d, tail in sorted(wanted, key=lambda w: (w[0], w[1], w[2], w[3], dot_bytes(w[4]) if w[4] else b"")):
            shown = name; k = 5
            while shown in taken or (shown != name and shown in used): assert k <= 64; shown = derive(name, tail, k); k += 1
            taken.add(shown); p = path + (shown,); v = nodes[n].content.get(d) if d else None
            out[p] = (n, d, v[1] if v else "dir", v[2] if v else None)
            if not notdir: lay(n, p)
    lay(ROOT, ()); return out

class Replica:
    def __init__(self, name): self.name, self.inc, self.n, self.nodes = name, inc_id(name), 0, {}
    def dot(self): self.n += 1; return (self.inc, self.n)
    def write(self, n, **fields):
        """One local change: a new dot; the given stores replaced (based on what is applied here, hence seen)."""
        s = self.nodes[n].copy() if n in self.nodes else State(); d = self.dot(); s.vec[self.inc] = d[1]; shown = showing(s)
        for f, fn in fields.items(): setattr(s, f, fn(getattr(s, f), d, dict(s.vec)))
        if "gone" in fields and s.gone.get(d) is None: s.content = {k: v for k, v in s.content.items() if k == d or k in shown}      # to outlive a delete does not bring back what it took away
        self.nodes[n] = s
    def rank(self, store): return max((v[0] for v in store.values()), default=0) + 1
    def fresh(self, parent, name):
        i = 0
        while True:
            n = node_id(parent, name, i); s = self.nodes.get(n)
            if s is None or (not alive(s) and top(s.place)[1][1:3] == (parent, name)): return n
            i += 1
    def create(self, parent, name, kind, value, n=None):
        n = n or self.fresh(parent, name)
        self.write(n, place=lambda o, d, v: {d: (self.rank(o), parent, name, None)}, content=lambda o, d, v: {d: (self.rank(o), kind, value)}, gone=lambda o, d, v: {})
        return n
    def others(self, store, old): return {k: x for k, x in store.items() if x[1:] != store[old][1:]}
    def edit(self, n, old, kind, value): self.write(n, content=lambda o, d, v: {**self.others(o, old), d: (self.rank(o), kind, value)}, gone=lambda o, d, v: {})
    def take(self, n, old): self.write(n, content=lambda o, d, v: self.others(o, old))      # this version goes, others stay
    def drop(self, n, old):
        if old is None: return
        if self.others(showing(self.nodes[n]), old): self.take(n, old)
        else: self.write(n, gone=lambda o, d, v: {d: v})
    def move(self, n, parent, name):
        """What the user saw on the ways to the root, old and new, is written too: else a cut placement could close or leave a loop, and show again."""
        _, where = settled(self.nodes)
        for up in where[n][0], parent:
            while up in where:
                at = tuple(where[up][:2])
                if at != top(self.nodes[up].place)[1][1:3]: self.put(up, *at)
                up = at[0]
        self.put(n, parent, name)
    def put(self, n, parent, name):
        e = top(self.nodes[n].place)[1][1:3]
        self.write(n, place=lambda o, d, v: {d: (self.rank(o), parent, name, e)}, gone=lambda o, d, v: {})
    def receive(self, other):
        for n, s in other.nodes.items(): self.nodes[n] = merge(self.nodes[n], s) if n in self.nodes else s.copy()

def below(t, p): return sorted((q for q in t if q[:len(p)] == p), key=lambda q: (-len(q), q))      # p and what is in it, deepest first, then by name
def do(r, t, op, p, *rest):
    """One user action, told by paths, on what this replica shows (t): the whole of what a recorded line means."""
    folder = lambda p: t[p][0] if p else ROOT
    if op == "c": r.create(folder(p[:-1]), p[-1], *rest); return
    n, dot, kind, value = t[p]
    copy = kind != "dir" and (dot != top(showing(r.nodes[n]))[0] or any(e[0] == n and e[2] == "dir" for e in t.values()))   # a version that lost its name; touched, it becomes a node of its own
    if op == "d":
        for q in below(t, p): r.drop(t[q][0], t[q][1])
    elif copy: to, k, v = (p, *rest) if op == "e" else (rest[0], kind, value); r.create(folder(to[:-1]), to[-1], k, v, split_id(n, dot)); r.take(n, dot)
    elif op == "e": r.edit(n, dot, *rest)
    else: r.move(n, folder(rest[0][:-1]), rest[0][-1])

LONG = b"l" * 204 + "é".encode() * 23 + b".txt"           # 254 bytes, cut inside a letter when derived from
MOVERS = 10**6                                           # seeds from here on mostly move folders, since loops are rare otherwise
def names(seed, d):
    """Few, so that collisions are the rule: with extensions, and for some seeds without any, not UTF-8, or (at the root, once a path) long."""
    return (b"a", b"b.txt", b"c.tar.gz") if seed % 8 != 7 else (b".a", b"b.", LONG if seed % 32 == 7 and not d else b"\xff.x")

def act(r, rng, ledger, seed, log):
    """One user action, chosen at random."""
    t = view(r.nodes); dirs = [(), *(p for p, e in t.items() if e[2] == "dir")]; op = rng.random(); d = rng.choice(sorted(dirs)); to = d + (rng.choice(names(seed, d)),)
    if seed >= MOVERS and rng.random() < .8: op = .75 + op / 4
    def go(*op): do(r, t, *op); log(r, *op); return view(r.nodes)
    if op < .35 or not t:
        if to in t: return
        x = rng.random(); kind = "file" if x < .45 else "link" if x < .6 else "dir"; value = f"{r.name}{r.n}" if kind != "dir" else None; go("c", to, kind, value)
        if value: ledger[value] = False
        return
    p = rng.choice(sorted(t)); n, dot, kind, value = t[p]
    if op < .6 and kind != "dir":
        new = f"{r.name}{r.n}"; ledger[value] = True; ledger[new] = False; kind = kind if rng.random() < .8 else "link" if kind == "file" else "file"
        assert go("e", p, kind, new)[p][2:] == (kind, new), "an edit does not show where it was made"
    elif op < .75:
        gone = {t[q][3] for q in below(t, p)} - {None}; ledger.update((v, True) for v in gone)
        assert not (gone - {"same"}) & {e[3] for e in go("d", p).values()}, "a delete leaves what it deleted"
    elif d[:len(p)] != p and to not in t and (t[d][0] if d else ROOT) != n:
        new = go("m", p, to); at = lambda v, p: v[p][0] if p else ROOT
        assert any(q[-1] == to[-1] and e[2:] == (kind, value) and at(new, q[:-1]) == at(t, d) for q, e in new.items()), "a move does not show where it went"

def run(seed, most=40, log=lambda *a: None):
    rng = random.Random(seed); rs = [Replica(c) for c in "XYZ"]; ledger = {}; together = seed % 10 == 0
    def meet():
        for a in rs:
            for b in rs: a.receive(b)
        log(rs[0], "r")
    if seed % 3 == 0 and seed < MOVERS:                                    # the same folder, found on every device before they ever met
        for r in rs:
            for op in (("c", (b"a",), "dir", None), ("c", (b"a", b"b.txt"), "file", "same")): do(r, view(r.nodes), *op); log(r, *op)
        ledger["same"] = False
    if seed >= MOVERS:
        for name in names(1, ()):
            for op in (("c", (name,), "dir", None), ("c", (name, b"a"), "dir", None)): do(rs[0], view(rs[0].nodes), *op); log(rs[0], *op)
        meet()
    if together: meet()
    for _ in range(rng.randint(5, most)):
        act(rng.choice(rs), rng, ledger, seed, log)
        if together: meet()
        elif rng.random() < (.4 if seed < MOVERS else .25): a, b = rng.sample(rs, 2); a.receive(b); log(a, "r", b)
    for a in rs:                                         # merge laws on what really occurred
        for n in list(a.nodes)[:3]:
            x, y, z = (r.nodes.get(n, State()) for r in rs)
            assert merge(x, y).key() == merge(y, x).key() and merge(x, x).key() == x.key() and merge(merge(x, y), z).key() == merge(x, merge(y, z)).key(), "merge laws"
    for _ in range(2):
        for a in rng.sample(rs, 3):
            for b in rng.sample(rs, 3): a.receive(b)
    vs = [view(r.nodes) for r in rs]; assert vs[0] == vs[1] == vs[2], "views differ"
    if not together: log(rs[0], "r")
    shown = [e[3] for e in vs[0].values() if e[3]]; once = [v for v in shown if v != "same"]; assert len(once) == len(set(once)), "shown twice"
    lost = [v for v, superseded in ledger.items() if not superseded and v not in shown]; assert not lost, f"lost {lost}"
    copies = sum(b"~conflict-" in p[-1] for p in vs[0]); assert not (together and copies), "a conflict without concurrency"
    return vs[0], copies

def quote(b): return "".join(chr(c) if re.match(rb"[A-Za-z0-9._~/-]", bytes([c])) else f"%{c:02X}" for c in b)
def unquote(s): return re.sub(rb"%(..)", lambda m: bytes([int(m[1], 16)]), s.encode())
def lines(t):
    """A view as canonical text: one line an entry, in the order of the bytes of the paths."""
    return sorted(f"{b'/'.join(p).hex()} {kind} {value.encode().hex() if value else '-'} {n.hex()} {d[0].hex() + ':' + str(d[1]) if d else '-'}\n".encode() for p, (n, d, kind, value) in t.items())
def digest(t):
    x = bytes(32)
    for line in lines(t): x = blake3.__wrapped__(x + line)
    return x.hex()[:8]
def shown(t):
    """The lines that end a history: the whole view, for a person to compare when a digest differs."""
    letter = {inc_id(c): c for c in "XYZ"}
    return [f"v {quote(b'/'.join(p))} {kind} {value or '-'} {n.hex()[:8]} {letter[d[0]] + str(d[1]) if d else '-'}\n" for p, (n, d, kind, value) in sorted(t.items(), key=lambda e: b"/".join(e[0]))]

def record(count, file):
    with open(file, "w") as out:
        out.write("# Histories of the replicated tree, written by docs/model/tree.py --record. docs/model/README.md says all; in short, with D the digest of\n"
                  "# the view of replica R (X, Y or Z) afterwards:   h SEED   |   c R PATH KIND VALUE D   |   e R PATH KIND VALUE D   |   d R PATH D   |\n"
                  "# m R PATH TO D   |   r R S D: R receives all of S   |   r * * D: each receives all of each   |   v PATH KIND VALUE NODE DOT: the last view\n")
        def log(r, op, *args):
            word = lambda a: "-" if a is None else a.name if isinstance(a, Replica) else quote(b"/".join(a)) if isinstance(a, tuple) else a
            out.write(" ".join((op, r.name, *map(word, args)) if args else (op, "*", "*")) + f" {digest(view(r.nodes))}\n")
        for seed in (*range(count * 4 // 5), *range(MOVERS, MOVERS + count - count * 4 // 5)): out.write(f"h {seed}\n"); out.writelines(shown(run(seed, 14, log)[0]))

def replay(file):
    rs = {}; final = []; seeds = 0; path = lambda s: tuple(unquote(s).split(b"/"))
    for number, line in enumerate(open(file), 1):
        op, *w = line.split()
        if op == "#": continue
        if op == "v":
            if not final: final = [shown(view(r.nodes)) for r in rs.values()]
            assert all(f and f.pop(0) == line for f in final), f"line {number}: the last view differs"
            continue
        assert not any(final), f"line {number}: the last view holds more"
        final = []
        if op == "h": rs = {c: Replica(c) for c in "XYZ"}; seeds += 1; continue
        if op == "r":
            for a in rs if w[0] == "*" else w[0]:
                for b in rs if w[1] == "*" else w[1]: rs[a].receive(rs[b])
        else:
            args = [path(w[1])] + ([path(w[2])] if op == "m" else [w[2], None if w[3] == "-" else w[3]] if op in "ce" else []); do(rs[w[0]], view(rs[w[0]].nodes), op, *args)
        for r in rs.values() if w[0] == "*" else [rs[w[0]]]: assert digest(view(r.nodes)) == w[-1], f"line {number}: the view of {r.name} differs"
    assert not any(final), "the end: the last view holds more"
    return seeds

if __name__ == "__main__":
    assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    if sys.argv[1:2] == ["--record"]: record(int(sys.argv[2]), sys.argv[3]); sys.exit()
    if sys.argv[1:2] == ["--replay"]: print(f"{replay(sys.argv[2])} histories agree"); sys.exit()
    total = conf = 0; count, first = (*map(int, sys.argv[1:]), *(2000, 0)[len(sys.argv) - 1:])
    for seed in range(first, first + count):
        try: t, c = run(seed); total += len(t); conf += c
        except Exception as e: print(f"seed {seed}: {type(e).__name__} {e}"); sys.exit(1)
    print(f"{count} seeds from {first} on hold; {total} paths shown, {conf} of them conflict copies")
