"""The wire in Python, for peers that lie: wire.h's numbers, and nothing here checks anything."""
import fcntl
import mmap
import os
import struct
import time

MAGIC, MAJOR, PAGE, REC = 0x31524645464E49, 3, 4096, 24
TAIL, HEAD, ARMED, NEED_SPACE, HEARTBEAT, ACKS = 64, 128, 192, 256, 320, 4096
REQ_HEAD, REQ_BODY, REQ_END, REQ_CANCEL = 1, 2, 3, 4
REP_HEAD, REP_DATA, REP_STATS, REP_END, PAD, OPTIONAL = 17, 18, 19, 20, 31, 0x8000
REP_ALIVE = 21 | OPTIONAL
SEALS = 2 | 4 | 0x10 | 1                    # shrink, grow, future write, seal
RECORD = "<IHHIIII"


def hello(epoch=7, magic=MAGIC, major=MAJOR, n_slot=4, window=12288, e2w=1 << 17, status=0):
    return struct.pack("<QIIIIIIQ88x", magic, major, 0, status, n_slot, window, e2w, epoch)


def pair(name, value):
    return struct.pack("<HH", len(name), len(value)) + name + value


class Side:
    """One end of a link: its own segment to write, the peer's to read."""

    def __init__(self, n_slot, window, ring, n_ack, fix=(), seals=SEALS, more=0, holes=False):
        self.ring, self.tail, self.head, self.seq = ring, 0, 0, {}
        self.ring_off = -(-(ACKS + 8 * n_ack) // PAGE) * PAGE
        size = self.ring_off + ring
        self.fd = os.memfd_create("hostile", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size + more)
        if not holes:
            os.posix_fallocate(self.fd, 0, size + more)
        self.own = mmap.mmap(self.fd, min(size, size + more))
        struct.pack_into("<QIIQQQIIQ", self.own, 0, MAGIC, MAJOR, 0, size, self.ring_off, ring, n_slot,
                         window, 7)
        for off, value in fix:
            self.word(off, value)
        if seals:
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, seals)

    def meet(self, fd):
        """Map the peer's segment."""
        self.peer = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        os.close(fd)
        self.peer_off, self.peer_ring = struct.unpack_from("<QQ", self.peer, 24)

    def word(self, off, value):
        memoryview(self.own).cast("Q")[off // 8] = value & 0xFFFFFFFFFFFFFFFF

    def bell(self, byte=b"W"):
        try:
            self.sock.send(byte)
        except OSError:
            pass                            # dropped in the meantime

    def put(self, kind, payload=b"", slot=0, gen=1, seq=None, length=None, flags=0, rsv=0):
        if seq is None:
            seq = self.seq.get(slot, 0)
            self.seq[slot] = seq + 1
        data = struct.pack(RECORD, len(payload) if length is None else length, kind, flags, slot,
                           gen, seq, rsv) + payload + b"\0" * (-len(payload) % 8)
        at = self.tail % self.ring
        if at + len(data) > self.ring:
            rest = self.ring - at
            if rest >= REC:
                struct.pack_into(RECORD, self.own, self.ring_off + at, rest - REC, PAD, 0, 0, 0, 0,
                                 0)
            self.tail += rest
            at = 0
        while self.tail + len(data) - self.consumed() > self.ring:
            self.bell()
            if self.closed(0.01):
                return
        self.own[self.ring_off + at:self.ring_off + at + len(data)] = data
        self.tail += len(data)
        self.publish()

    def publish(self, tail=None):
        self.word(TAIL, self.tail if tail is None else tail)
        self.bell()

    def consumed(self):
        return struct.unpack_from("<Q", self.peer, HEAD)[0]

    def records(self, until=None, limit=120, release=True):
        """(type, slot, gen, payload) as they come, until one is of the type `until`."""
        out, end = [], time.time() + limit
        while time.time() < end:
            tail = struct.unpack_from("<Q", self.peer, TAIL)[0]
            while self.head < tail:
                at = self.head % self.peer_ring
                if self.peer_ring - at < REC:
                    self.head += self.peer_ring - at
                    continue
                n, kind, _, slot, gen, _, _ = struct.unpack_from(RECORD, self.peer,
                                                                 self.peer_off + at)
                p = self.peer_off + at + REC
                self.head += REC + -(-n // 8) * 8
                if kind != PAD:
                    out.append((kind, slot, gen, self.peer[p:p + n]))
            if release:
                self.word(HEAD, self.head)
            if any(r[0] == until for r in out):
                break
            time.sleep(0.002)
        return out

    def closed(self, limit=120):
        """The peer closed the socket."""
        self.sock.settimeout(limit or 0.001)
        try:
            while self.sock.recv(4096):
                pass
            return True
        except ConnectionResetError:
            return True
        except OSError:
            return False

    def close(self):
        self.sock.close()
        self.own.close()
