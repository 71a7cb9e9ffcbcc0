//! The bytes of a manifest: which chunks make up a snapshot.
//!
//! | bytes | what |
//! |-------|------|
//! | 4     | `LRSM` |
//! | 2     | version of this layout |
//! | 8     | size of the disk |
//! | 8     | length of a chunk |
//! | 1     | length of the disk's id |
//! | ..    | the disk's id |
//! |       | **for each chunk that is not all zeros, in ascending order:** |
//! | 1     | 1; or 3 if the copy found this chunk nowhere and wrote it |
//! | 8     | index |
//! | 32    | digest |
//! | 8     | what it takes in the store |
//! | 1     | length of the incarnation |
//! | ..    | the incarnation |
//! |       | **at the end:** |
//! | 1     | 0 |
//! | 8     | number of chunks |
//! | 32    | content hash |
//! | 32    | BLAKE3 of all bytes before |
//!
//! Integers are little endian. A draft is a manifest up to any of its chunks, so a complete draft becomes a manifest by
//! adding the end. Both are read and written as streams: memory does not grow with the disk. For what cannot be told chunk by
//! chunk the stream is read more than once, see [`DigestPart`].

use std::{
    fmt,
    io::{self, BufReader, Read},
    ops::Range,
};

use super::{
    ByteStream, ChunkError, ChunkName, ChunkStore, Digest, DiskId, Incarnation, NAME_CHARS_MAX, SnapshotId,
    Subject,
    geometry::{Geometry, next_link},
};

const MAGIC: &[u8; 4] = b"LRSM";
const VERSION: u16 = 1;
const END: u8 = 0;
const CHUNK: u8 = 1;
const FRESH_CHUNK: u8 = 3;
/// How a stream is read.
const BUFFER_LEN: usize = 64 * 1024;
/// How many digests are in memory at a time: 16 MiB of them, enough for 4 TiB of disk.
const DIGESTS_AT_A_TIME: usize = 1 << 20;

/// What a manifest begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestHeader {
    /// The disk that was copied.
    pub disk_id: DiskId,
    /// Its size in bytes.
    pub disk_size: u64,
    /// The length of a chunk.
    pub chunk_bytes: u64,
}

/// One chunk of a manifest. What is not listed is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Its place: it begins at `index * chunk_bytes`.
    pub index: u64,
    /// Where its bytes are.
    pub name: ChunkName,
    /// What it takes in the chunk store, also if it takes it once for several places or snapshots.
    pub stored_bytes: u64,
    /// The copy did not find the chunk in the store and wrote it.
    pub fresh: bool,
}

/// What a snapshot comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The size of the disk in bytes.
    pub disk_size: u64,
    /// The digest of the whole disk: equal for equal size and bytes, wherever the file systems kept holes.
    ///
    /// It is a chain. The first link is the BLAKE3 of size and chunk length, and each chunk that is not all zeros
    /// adds a link: the BLAKE3 of the link before, its index and its digest (integers as 8 bytes, little
    /// endian). Being a chain it can be carried on after a crash from its last link alone.
    pub content_hash: Digest,
    /// How many chunks are not all zeros.
    pub chunks: u64,
    /// What they take in the store, each that comes more than once counted once. Others may share them.
    pub stored_bytes: u64,
}

impl Summary {
    /// That of a complete snapshot. The manifest is read once for each [part](DigestPart) of its digests.
    pub fn of_manifest(chunks: &dyn ChunkStore, snapshot: &SnapshotId) -> Result<Self, ChunkError> {
        Self::of(|| ManifestReader::open(chunks, snapshot))
    }

    /// That of a manifest, or of a draft that has its end, which is opened for each pass.
    pub(super) fn of(open: impl FnMut() -> Result<ManifestReader, ChunkError>) -> Result<Self, ChunkError> {
        Self::in_parts(DIGESTS_AT_A_TIME, open)
    }

    fn in_parts(
        at_a_time: usize,
        mut open: impl FnMut() -> Result<ManifestReader, ChunkError>,
    ) -> Result<Self, ChunkError> {
        let (mut part, mut stored_bytes) = (DigestPart::before_the_first(at_a_time), 0_u64);
        loop {
            let mut reader = open()?;
            part = part.next(&mut reader)?;
            stored_bytes = stored_bytes.saturating_add(part.stored_bytes());
            if part.is_last() {
                let EntryReader { link: content_hash, chunks, .. } = reader.entries;
                return Ok(Self { disk_size: reader.header.disk_size, content_hash, chunks, stored_bytes });
            }
        }
    }
}

impl ManifestHeader {
    pub(super) fn geometry(&self) -> Option<Geometry> {
        Geometry::new(self.disk_size, self.chunk_bytes)
    }

    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.disk_size.to_le_bytes());
        bytes.extend_from_slice(&self.chunk_bytes.to_le_bytes());
        write_text(self.disk_id.as_str(), bytes);
    }
}

impl ManifestEntry {
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(if self.fresh { FRESH_CHUNK } else { CHUNK });
        bytes.extend_from_slice(&self.index.to_le_bytes());
        bytes.extend_from_slice(self.name.digest.as_bytes());
        bytes.extend_from_slice(&self.stored_bytes.to_le_bytes());
        write_text(self.name.incarnation.as_str(), bytes);
    }
}

/// Writes what comes behind the last chunk. `before` has seen all bytes up to here.
pub(super) fn write_end(chunks: u64, content_hash: &Digest, before: &blake3::Hasher, bytes: &mut Vec<u8>) {
    let mut end = vec![END];
    end.extend_from_slice(&chunks.to_le_bytes());
    end.extend_from_slice(content_hash.as_bytes());
    let mut whole = before.clone();
    whole.update(&end);
    bytes.extend_from_slice(&end);
    bytes.extend_from_slice(whole.finalize().as_bytes());
}

/// Ids and incarnations: the length fits a byte.
fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(text.as_bytes());
}

/// Why a stream could not be read on.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is not what was written.
    Bad(&'static str),
    /// It could not be read.
    Io(io::Error),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Bad("it is cut short"),
            _ => Self::Io(error),
        }
    }
}

/// Reads a draft or a manifest, and checks what can be checked on the way.
pub(super) struct EntryReader<R> {
    input: BufReader<R>,
    hasher: blake3::Hasher,
    geometry: Geometry,
    /// Bytes read so far.
    pub(super) length: u64,
    pub(super) chunks: u64,
    pub(super) link: Digest,
    last_index: Option<u64>,
}

impl<R: Read> EntryReader<R> {
    pub(super) fn open(input: R) -> Result<(ManifestHeader, Self), Unreadable> {
        let nothing = Geometry { disk_size: 0, chunk_bytes: 1 };
        let mut reader = Self {
            input: BufReader::with_capacity(BUFFER_LEN, input),
            hasher: blake3::Hasher::new(),
            geometry: nothing,
            length: 0,
            chunks: 0,
            link: nothing.first_link(),
            last_index: None,
        };
        if &reader.array::<4>()? != MAGIC {
            return Err(Unreadable::Bad("it is not a manifest"));
        }
        if u16::from_le_bytes(reader.array()?) != VERSION {
            return Err(Unreadable::Bad("its version is unknown"));
        }
        let (disk_size, chunk_bytes) = (reader.integer()?, reader.integer()?);
        let disk_id = reader.text()?.parse().map_err(|_| Unreadable::Bad("its disk id is none"))?;
        let header = ManifestHeader { disk_id, disk_size, chunk_bytes };
        reader.geometry = header.geometry().ok_or(Unreadable::Bad("its chunk length is unknown"))?;
        reader.link = reader.geometry.first_link();
        Ok((header, reader))
    }

    /// The next chunk. `None`: the end mark was read.
    pub(super) fn next_entry(&mut self) -> Result<Option<ManifestEntry>, Unreadable> {
        let fresh = match self.array()? {
            [END] => return Ok(None),
            [CHUNK] => false,
            [FRESH_CHUNK] => true,
            _ => return Err(Unreadable::Bad("it has something that is no chunk")),
        };
        let index = self.integer()?;
        let digest = Digest::from_bytes(self.array()?);
        let stored_bytes = self.integer()?;
        let incarnation: Incarnation =
            self.text()?.parse().map_err(|_| Unreadable::Bad("an incarnation is none"))?;
        if self.last_index.is_some_and(|last| index <= last) {
            return Err(Unreadable::Bad("its chunks are out of order"));
        }
        if self.geometry.chunk_len(index) == 0 {
            return Err(Unreadable::Bad("it has a chunk past the end of the disk"));
        }
        self.last_index = Some(index);
        self.chunks = self.chunks.saturating_add(1);
        self.link = next_link(&self.link, index, &digest);
        Ok(Some(ManifestEntry { index, name: ChunkName::new(digest, incarnation), stored_bytes, fresh }))
    }

    /// Checks what comes behind the end mark.
    fn check_end(&mut self) -> Result<(), Unreadable> {
        if self.integer()? != self.chunks {
            return Err(Unreadable::Bad("its number of chunks is wrong"));
        }
        if &self.array()? != self.link.as_bytes() {
            return Err(Unreadable::Bad("its content hash is wrong"));
        }
        let whole = self.hasher.finalize();
        if &self.array::<32>()? != whole.as_bytes() {
            return Err(Unreadable::Bad("its checksum is wrong"));
        }
        if self.input.read(&mut [0])? > 0 {
            return Err(Unreadable::Bad("something follows its end"));
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Unreadable> {
        self.input.read_exact(bytes)?;
        self.hasher.update(bytes);
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn integer(&mut self) -> Result<u64, Unreadable> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        let [length] = self.array()?;
        let mut bytes = [0; NAME_CHARS_MAX];
        let text = bytes.get_mut(..usize::from(length)).ok_or(Unreadable::Bad("a name is too long"))?;
        self.fill(text)?;
        let text = std::str::from_utf8(text).map_err(|_| Unreadable::Bad("a name is no text"))?;
        Ok(text.to_owned())
    }
}

/// Goes through the chunks of a snapshot, in ascending order.
///
/// Everything is checked on the way: order, bounds, number, content hash and, at the end, the digest of all bytes. Only
/// when it has come to its end without an error is it known that each chunk it gave is the right one.
pub struct ManifestReader {
    snapshot: SnapshotId,
    header: ManifestHeader,
    entries: EntryReader<ByteStream>,
    ended: bool,
}

impl ManifestReader {
    /// Opens the manifest of a snapshot.
    pub fn open(chunks: &dyn ChunkStore, snapshot: &SnapshotId) -> Result<Self, ChunkError> {
        let stream = chunks.read_manifest(snapshot)?;
        let stream = stream.ok_or_else(|| ChunkError::NoManifest { snapshot: snapshot.clone() })?;
        Self::of(stream, snapshot)
    }

    pub(super) fn of(stream: ByteStream, snapshot: &SnapshotId) -> Result<Self, ChunkError> {
        let (header, entries) = EntryReader::open(stream).map_err(|why| unreadable(snapshot, why))?;
        Ok(Self { snapshot: snapshot.clone(), header, entries, ended: false })
    }

    /// What it begins with.
    pub const fn header(&self) -> &ManifestHeader {
        &self.header
    }

    pub(super) const fn geometry(&self) -> Geometry {
        self.entries.geometry
    }

    /// Reads to the end.
    pub(super) fn check(mut self) -> Result<(), ChunkError> {
        self.try_for_each(|entry| entry.map(drop))
    }

    /// The content hash, once the end was read.
    pub(super) const fn content_hash(&self) -> Digest {
        self.entries.link
    }

    fn advance(&mut self) -> Result<Option<ManifestEntry>, Unreadable> {
        let entry = self.entries.next_entry()?;
        if entry.is_none() {
            self.entries.check_end()?;
        }
        Ok(entry)
    }
}

impl Iterator for ManifestReader {
    type Item = Result<ManifestEntry, ChunkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let entry = self.advance().map_err(|why| unreadable(&self.snapshot, why)).transpose();
        self.ended = !matches!(entry, Some(Ok(_)));
        entry
    }
}

impl fmt::Debug for ManifestReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestReader")
            .field("snapshot", &self.snapshot)
            .field("header", &self.header)
            .field("chunks", &self.entries.chunks)
            .finish_non_exhaustive()
    }
}

fn unreadable(snapshot: &SnapshotId, why: Unreadable) -> ChunkError {
    match why {
        Unreadable::Bad(why) => ChunkError::DamagedManifest { snapshot: snapshot.clone(), why },
        Unreadable::Io(source) => {
            ChunkError::of_io("read", Subject::Manifest(snapshot.clone()), None, source)
        }
    }
}

/// The manifest is not the one that was read before.
pub(super) fn exchanged(snapshot: &SnapshotId) -> ChunkError {
    ChunkError::DamagedManifest { snapshot: snapshot.clone(), why: "it was exchanged while it was read" }
}

/// The digests of a snapshot's chunks, each once: the lowest from where the part before ends, as many as fit 16 MiB. So memory
/// does not grow with the disk. The chunks of a disk of up to 4 TiB are one part.
///
/// The manifest is read once for each part. It is whole and the same each time, or there is an error.
///
/// Of a digest there are 88 bits. That two chunks of one snapshot agree in so many without being equal is not to be expected, and
/// does little harm: one of them is not counted, or a reference that nobody needs is kept.
#[derive(Debug)]
pub struct DigestPart {
    /// The digests that belong to it, whether a chunk has them or not.
    range: Range<u128>,
    /// A digest above the 40 bits of what its chunk takes. Never more than `at_a_time`.
    chunks: Vec<u128>,
    at_a_time: usize,
    /// That of the manifest, once it was read.
    content_hash: Option<Digest>,
}

impl DigestPart {
    const SIZE_BITS: u32 = 40;
    const SIZE_MAX: u128 = (1 << Self::SIZE_BITS) - 1;
    /// Where the last part ends.
    const END: u128 = 1 << (u128::BITS - Self::SIZE_BITS);

    /// Of a complete snapshot the part after this one, or the first. `None`: it was the last.
    pub fn of_manifest(
        chunks: &dyn ChunkStore,
        snapshot: &SnapshotId,
        after: Option<Self>,
    ) -> Result<Option<Self>, ChunkError> {
        let before = after.unwrap_or_else(|| Self::before_the_first(DIGESTS_AT_A_TIME));
        if before.is_last() {
            return Ok(None);
        }
        before.next(&mut ManifestReader::open(chunks, snapshot)?).map(Some)
    }

    /// True: none of the chunks has this digest, of which the bytes are given. False also for those of other parts.
    pub fn lacks(&self, digest: &[u8]) -> bool {
        let digest = Self::digest_in(Self::chunk(digest, 0));
        self.range.contains(&digest)
            && self.chunks.binary_search_by_key(&digest, |chunk| Self::digest_in(*chunk)).is_err()
    }

    /// Parts of at most so many digests, two or more.
    fn before_the_first(at_a_time: usize) -> Self {
        Self { range: 0..0, chunks: Vec::new(), at_a_time: at_a_time.max(2), content_hash: None }
    }

    const fn is_last(&self) -> bool {
        self.range.end == Self::END
    }

    /// Makes it the part after this one. Reads to the end.
    fn next(mut self, reader: &mut ManifestReader) -> Result<Self, ChunkError> {
        self.range = self.range.end..Self::END;
        self.chunks.clear();
        for entry in &mut *reader {
            self.add(&entry?);
        }
        self.sort();
        let content_hash = reader.content_hash();
        if self.content_hash.replace(content_hash).is_some_and(|before| before != content_hash) {
            return Err(exchanged(&reader.snapshot));
        }
        Ok(self)
    }

    fn add(&mut self, entry: &ManifestEntry) {
        if self.chunks.len() >= self.at_a_time {
            self.make_room();
        }
        let chunk = Self::chunk(entry.name.digest.as_bytes(), entry.stored_bytes);
        if self.range.contains(&Self::digest_in(chunk)) {
            self.chunks.push(chunk);
        }
    }

    /// Makes room for a quarter at least, so that it is not asked for all the time: of what is left when each is there once, the
    /// highest are for the parts that follow. However the digests are spread, each part has its share of them.
    fn make_room(&mut self) {
        self.sort();
        let kept = self.at_a_time - self.at_a_time.div_ceil(4);
        if let Some(&chunk) = self.chunks.get(kept) {
            self.range.end = Self::digest_in(chunk);
            self.chunks.truncate(kept);
        }
    }

    /// Each once, with the least that it was said to take.
    fn sort(&mut self) {
        self.chunks.sort_unstable();
        self.chunks.dedup_by_key(|chunk| Self::digest_in(*chunk));
    }

    /// What its chunks take.
    fn stored_bytes(&self) -> u64 {
        let size = |chunk: &u128| u64::try_from(chunk & Self::SIZE_MAX).unwrap_or(u64::MAX);
        self.chunks.iter().map(size).fold(0, u64::saturating_add)
    }

    fn chunk(digest: &[u8], stored_bytes: u64) -> u128 {
        let mut first = [0; 16];
        first.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        u128::from_be_bytes(first) & !Self::SIZE_MAX | u128::from(stored_bytes).min(Self::SIZE_MAX)
    }

    const fn digest_in(chunk: u128) -> u128 {
        chunk >> Self::SIZE_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::data::ChunkFolder;

    const CHUNK: u64 = super::super::CHUNK_BYTES;

    fn snapshot() -> SnapshotId {
        "s".parse().unwrap()
    }

    fn header() -> ManifestHeader {
        ManifestHeader { disk_id: "d".parse().unwrap(), disk_size: 3 * CHUNK + 1, chunk_bytes: CHUNK }
    }

    fn entry(index: u64, content: &[u8]) -> ManifestEntry {
        let name = ChunkName::new(Digest::of(content), "e-7".parse().unwrap());
        ManifestEntry { index, name, stored_bytes: 64 + content.len() as u64, fresh: index == 0 }
    }

    /// A manifest, its end as it follows from what is before.
    fn sealed(header: &ManifestHeader, entries: &[ManifestEntry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header.write(&mut bytes);
        let mut link = Geometry { disk_size: header.disk_size, chunk_bytes: header.chunk_bytes }.first_link();
        for entry in entries {
            entry.write(&mut bytes);
            link = next_link(&link, entry.index, &entry.name.digest);
        }
        let before = blake3::Hasher::new().update(&bytes).clone();
        write_end(entries.len() as u64, &link, &before, &mut bytes);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(ManifestHeader, Vec<ManifestEntry>), ChunkError> {
        let reader = ManifestReader::of(Box::new(io::Cursor::new(bytes.to_vec())), &snapshot())?;
        let header = reader.header().clone();
        Ok((header, reader.collect::<Result<_, _>>()?))
    }

    #[test]
    fn round_trip() {
        for indexes in [&[][..], &[0], &[0, 2, 3]] {
            let entries: Vec<_> = indexes.iter().map(|&index| entry(index, b"x")).collect();
            assert_eq!(read(&sealed(&header(), &entries)).unwrap(), (header(), entries));
        }
    }

    /// The layout of version 1, for ever.
    #[test]
    fn golden() {
        let bytes = sealed(&header(), &[entry(0, b"x"), entry(3, b"yy")]);
        let (x, y) = (Digest::of(b"x"), Digest::of(b"yy"));
        let mut expected = [
            b"LRSM\x01\0\x01\0\xc0\0\0\0\0\0\0\0\x40\0\0\0\0\0\x01d".as_slice(),
            b"\x03\0\0\0\0\0\0\0\0",
            x.as_bytes(),
            b"\x41\0\0\0\0\0\0\0\x03e-7",
            b"\x01\x03\0\0\0\0\0\0\0",
            y.as_bytes(),
            b"\x42\0\0\0\0\0\0\0\x03e-7",
            b"\0\x02\0\0\0\0\0\0\0",
        ]
        .concat();
        let first = Digest::of_parts(&[&(3 * CHUNK + 1).to_le_bytes(), &CHUNK.to_le_bytes()]);
        let second = Digest::of_parts(&[first.as_bytes(), &0u64.to_le_bytes(), x.as_bytes()]);
        let third = Digest::of_parts(&[second.as_bytes(), &3u64.to_le_bytes(), y.as_bytes()]);
        expected.extend_from_slice(third.as_bytes());
        let whole = Digest::of(&expected);
        expected.extend_from_slice(whole.as_bytes());
        assert_eq!(bytes, expected);
        assert_eq!(whole.to_string(), "1742f317c5661021975d040805d756b2b66121837a6f900fbee89eb34965b7d2");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let good = sealed(&header(), &[entry(0, b"x"), entry(3, b"y")]);
        for byte in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[byte] ^= 1 << bit;
                let error = read(&bad).unwrap_err();
                assert!(error.is_damage(), "bit {bit} of byte {byte}: {error}");
            }
            assert!(read(&good[..byte]).unwrap_err().is_damage(), "cut at {byte}");
        }
        assert!(read(&[&good[..], b"x"].concat()).is_err());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let why = |header: &ManifestHeader, entries: &[ManifestEntry]| {
            let error = read(&sealed(header, entries)).unwrap_err().to_string();
            error.replace("the manifest of snapshot s is damaged: ", "")
        };
        let (first, last) = (entry(0, b"x"), entry(3, b"y"));
        let order = "its chunks are out of order";
        assert_eq!(why(&header(), &[last.clone(), first.clone()]), order);
        assert_eq!(why(&header(), &[first.clone(), first]), order);
        let beyond = "it has a chunk past the end of the disk";
        assert_eq!(why(&header(), &[entry(4, b"x")]), beyond);
        assert_eq!(why(&header(), &[entry(u64::MAX, b"x")]), beyond);
        assert_eq!(why(&ManifestHeader { disk_size: 3 * CHUNK, ..header() }, &[last]), beyond);
        for chunk_bytes in [0, CHUNK + 1, u64::MAX] {
            let header = ManifestHeader { chunk_bytes, ..header() };
            assert_eq!(why(&header, &[]), "its chunk length is unknown");
        }
    }

    #[test]
    fn an_error_ends_it() {
        let mut bytes = sealed(&header(), &[entry(0, b"x")]);
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let mut reader = ManifestReader::of(Box::new(io::Cursor::new(bytes)), &snapshot()).unwrap();
        assert!(reader.next().unwrap().is_ok());
        assert!(reader.next().unwrap().is_err());
        assert!(reader.next().is_none());
    }

    #[test]
    fn what_comes_twice_is_taken_once() {
        let entries = [entry(0, b"x"), entry(1, b"yy"), entry(2, b"x"), entry(3, b"x")];
        let bytes = sealed(&header(), &entries);
        let summary = Summary::of(|| reader(&bytes)).unwrap();
        assert_eq!((summary.chunks, summary.stored_bytes), (4, 65 + 66));
        assert_eq!(summary.disk_size, 3 * CHUNK + 1);
    }

    fn reader(bytes: &[u8]) -> Result<ManifestReader, ChunkError> {
        ManifestReader::of(Box::new(io::Cursor::new(bytes.to_vec())), &snapshot())
    }

    const SOME: u64 = 200;

    fn number(number: u64) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Digest::from_bytes(bytes)
    }

    /// Digests spread evenly, and as badly as can be.
    fn spreads() -> [(&'static str, Vec<Digest>); 8] {
        let of = |digest: &dyn Fn(u64) -> Digest| (0..SOME).map(digest).collect::<Vec<_>>();
        let evenly = |i: u64| Digest::of(&i.to_le_bytes());
        [
            ("evenly", of(&evenly)),
            ("evenly, each twice, far from each other", of(&|i| evenly(i % (SOME / 2)))),
            ("evenly, some again and again", of(&|i| evenly(i % 7))),
            ("ascending, close to each other", of(&number)),
            ("descending", of(&|i| number(SOME - i))),
            ("the highest", of(&|i| number(u64::MAX - i % 50))),
            ("half of them evenly, half close", of(&|i| if i % 2 == 0 { evenly(i) } else { number(i) })),
            ("one", of(&|_| number(u64::MAX))),
        ]
    }

    /// A manifest of chunks with these digests. What one takes is not the same in all places, as it never should be.
    fn manifest_of(digests: &[Digest]) -> (Vec<ManifestEntry>, Vec<u8>) {
        let entry = |(index, digest): (u64, &Digest)| {
            let name = ChunkName::new(*digest, "e-7".parse().unwrap());
            ManifestEntry { index, name, stored_bytes: 1000 + 17 * index % 101, fresh: false }
        };
        let entries: Vec<_> = (0..).zip(digests).map(entry).collect();
        let header = ManifestHeader { disk_size: SOME, chunk_bytes: 1, ..header() };
        let bytes = sealed(&header, &entries);
        (entries, bytes)
    }

    /// What each digest takes: the least that is said.
    fn sizes(entries: &[ManifestEntry]) -> BTreeMap<Digest, u64> {
        let mut sizes = BTreeMap::new();
        for entry in entries {
            let size = sizes.entry(entry.name.digest).or_insert(u64::MAX);
            *size = entry.stored_bytes.min(*size);
        }
        sizes
    }

    #[test]
    fn the_sum_is_the_same_in_however_many_parts() {
        for (spread, digests) in spreads() {
            let (entries, bytes) = manifest_of(&digests);
            let sizes = sizes(&entries);
            let whole = Summary::of(|| reader(&bytes)).unwrap();
            assert_eq!((whole.chunks, whole.stored_bytes), (SOME, sizes.values().sum()), "{spread}");
            for at_a_time in [2, 3, 4, 5, 7, 16, 50, 100, 101, 199, 200, 1000] {
                let mut passes = 0;
                let open = || {
                    passes += 1;
                    reader(&bytes)
                };
                assert_eq!(Summary::in_parts(at_a_time, open).unwrap(), whole, "{spread}, {at_a_time}");
                let most = 1 + sizes.len() / (at_a_time * 3 / 4);
                assert!(passes <= most, "{spread}, {at_a_time}: {passes} passes, not {most}");
                let one = at_a_time as u64 >= SOME || sizes.len() <= at_a_time * 3 / 4;
                assert!(!one || passes == 1, "{spread}, {at_a_time}: {passes} passes for one");
                assert!(passes >= sizes.len().div_ceil(at_a_time), "{spread}, {at_a_time}: {passes} passes");
            }
        }
    }

    #[test]
    fn a_part_has_never_more_than_it_may() {
        for (spread, digests) in spreads() {
            let (entries, _) = manifest_of(&digests);
            for at_a_time in [2, 3, 4, 5, 16, 64, 199, 256] {
                let mut part =
                    DigestPart { range: 0..DigestPart::END, ..DigestPart::before_the_first(at_a_time) };
                for entry in &entries {
                    part.add(entry);
                    assert!(part.chunks.len() <= at_a_time, "{spread}, {at_a_time}");
                }
                assert!(
                    part.chunks.capacity() <= at_a_time.next_power_of_two().max(4),
                    "{spread}, {at_a_time}"
                );
            }
        }
    }

    #[test]
    fn each_digest_that_no_chunk_has_is_lacking_in_one_part_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = ChunkFolder::open(folder.path()).unwrap();
        for (spread, digests) in spreads() {
            let (entries, bytes) = manifest_of(&digests);
            let run = "1-1".parse().unwrap();
            let mut draft = store.begin_draft(&snapshot(), &run).unwrap();
            draft.append(&bytes).unwrap();
            draft.sync().unwrap();
            store.seal(&snapshot(), &run).unwrap();
            let sizes = sizes(&entries);
            let others = (0..SOME).flat_map(|i| [number(i << 20), Digest::of(&i.to_be_bytes())]);
            let others: BTreeSet<Digest> = others.filter(|digest| !sizes.contains_key(digest)).collect();
            assert!(others.len() > 100);
            for at_a_time in [2, 3, 16, 100, 1000] {
                let (mut lacking, mut part) =
                    (BTreeSet::new(), Some(DigestPart::before_the_first(at_a_time)));
                loop {
                    part = DigestPart::of_manifest(&store, &snapshot(), part).unwrap();
                    let Some(part) = &part else { break };
                    for digest in sizes.keys().chain(&others).filter(|digest| part.lacks(digest.as_bytes())) {
                        assert!(lacking.insert(*digest), "{spread}, {at_a_time}: {digest} in two parts");
                    }
                }
                assert_eq!(lacking, others, "{spread}, {at_a_time}");
            }
            let whole = DigestPart::of_manifest(&store, &snapshot(), None).unwrap().unwrap();
            assert!(others.iter().all(|digest| whole.lacks(digest.as_bytes())), "{spread}");
            assert!(DigestPart::of_manifest(&store, &snapshot(), Some(whole)).unwrap().is_none(), "{spread}");
        }
    }

    #[test]
    fn a_manifest_that_is_exchanged_or_damaged_between_two_passes_is_an_error() {
        let (entries, one) = manifest_of(&spreads()[0].1);
        let header = ManifestHeader { disk_size: SOME, chunk_bytes: 1, ..header() };
        let other = sealed(&header, &entries[1..]);
        let larger = sealed(&ManifestHeader { disk_size: SOME + 1, ..header }, &entries);
        let cut = one[..one.len() - 1].to_vec();
        let exchanged = "it was exchanged while it was read";
        for (then, expected) in [(other, exchanged), (larger, exchanged), (cut, "it is cut short")] {
            for whole_passes in 1..3 {
                let mut passes = 0;
                let error = Summary::in_parts(60, || {
                    passes += 1;
                    reader(if passes > whole_passes { &then } else { &one })
                });
                let ChunkError::DamagedManifest { why, .. } = error.unwrap_err() else {
                    panic!("{expected}")
                };
                assert_eq!((why, passes), (expected, whole_passes + 1));
            }
        }
        let mut passes = 0;
        let gone = Summary::in_parts(60, || {
            passes += 1;
            if passes == 1 { reader(&one) } else { Err(ChunkError::NoManifest { snapshot: snapshot() }) }
        });
        assert!(matches!(gone, Err(ChunkError::NoManifest { .. })));
    }
}
