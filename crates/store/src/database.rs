//! `RocksDB` with sealed values and errors that say where.

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator,
    DBRecoveryMode, ErrorKind, FlushOptions, IngestExternalFileOptions, Options, ReadOptions, SstFileWriter,
    WriteBatch, WriteOptions,
};
use stele_consensus::StoreError;
use stele_consensus::seal::{seal_into, unseal};

use crate::disk::{Disk, Space};
use crate::error::OpenError;
use crate::{limits, processor};

pub(crate) const REMEDY: &str = "This controller must not go on with it. Keep the folder for \
     inspection, remove the controller from the cluster and add it again under a new id with an \
     empty folder; its history is then copied from the others";

/// The column families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// Raft entries by big-endian index.
    Raft,
    /// Small values.
    Meta,
    /// Records by big-endian seq.
    Records,
    /// Snapshots of State: heads by big-endian seq, and parts of their bytes by
    /// seq, stage and number.
    Snapshots,
    /// Whatever can be rebuilt from the rest.
    Derived,
}

impl Family {
    const ALL: [Self; 5] = [Self::Raft, Self::Meta, Self::Records, Self::Snapshots, Self::Derived];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Raft => "raft",
            Self::Meta => "meta",
            Self::Records => "records",
            Self::Snapshots => "snapshots",
            Self::Derived => "derived",
        }
    }
}

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// An open `RocksDB`.
pub(crate) struct Database {
    db: DB,
    disk: Disk,
}

/// Writes to be made at once, with the space they take.
pub(crate) struct Batch<'a> {
    database: &'a Database,
    inner: WriteBatch,
    sealed: Vec<u8>,
}

fn options(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // A tail that was cut off in the middle of a write is what a crash leaves:
    // nobody was told that it is durable. Any other damage in the write-ahead
    // log may hit what was acknowledged. The default (point in time) would drop
    // everything after the damage without a word; this mode fails to open.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A write-ahead log that vanished or shrank after it was synced is noticed.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_total_wal_size(limits::MAX_WAL_BYTES);
    options.set_db_write_buffer_size(limits::MEMTABLE_BYTES);
    options.set_max_open_files(limits::MAX_OPEN_FILES);
    options.set_keep_log_file_num(limits::INFO_LOG_FILES);
    options.set_max_log_file_size(limits::INFO_LOG_BYTES);
    options
}

fn family_options(family: Family) -> Options {
    let mut options = Options::default();
    options.set_paranoid_checks(true);
    match family {
        // Raft entries are short-lived and hold what is compressed as a record.
        Family::Raft | Family::Meta => options.set_compression_type(DBCompressionType::None),
        Family::Records | Family::Snapshots | Family::Derived => {
            // What is written now is compressed quickly; what it comes to rest as, and snapshots, well.
            options.set_compression_type(DBCompressionType::Lz4);
            options.set_bottommost_compression_type(DBCompressionType::Zstd);
            let mut table = BlockBasedOptions::default();
            table.set_block_size(limits::COMPRESSED_BLOCK_BYTES);
            options.set_block_based_table_factory(&table);
        }
    }
    options
}

/// A key and its value, where they lie.
type Row<'a> = (&'a [u8], &'a [u8]);

/// Key-value pairs, shown one after the other.
pub(crate) struct Rows<'a> {
    database: &'a Database,
    family: Family,
    at: DBRawIterator<'a>,
    is_begun: bool,
}

impl Rows<'_> {
    /// The next one, which is there until the one after it is asked for. After one whose own checksum is wrong the
    /// others follow; after any other error there is nothing but that.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, StoreError> {
        if std::mem::replace(&mut self.is_begun, true) {
            self.at.next();
        }
        let Some((key, sealed)) = self.at.item() else {
            let ended = self.at.status();
            return ended
                .map(|()| None)
                .map_err(|error| self.database.failed("reading", self.family, &error));
        };
        Ok(Some((key, self.database.open_seal(self.family, key, sealed)?)))
    }
}

impl Database {
    pub(crate) fn exists(path: &Path) -> bool {
        path.join("CURRENT").exists()
    }

    pub(crate) fn open(path: &Path, create: bool, reserve_bytes: u64) -> Result<Self, OpenError> {
        processor::check()?;
        let disk = Disk::open(path, reserve_bytes)?;
        let families =
            Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family)));
        let db = DB::open_cf_descriptors(&options(create), path, families).map_err(|error| {
            let words = error.to_string();
            if error.kind() == ErrorKind::IOError && words.contains("lock") {
                return OpenError::Locked { path: path.to_owned(), detail: words };
            }
            OpenError::Store(explain("opening", path.display().to_string(), &disk, &error))
        })?;
        Ok(Self { db, disk })
    }

    /// Opens it without writing anything. Every file is opened at once, so that those which
    /// a running controller deletes meanwhile can still be read.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, OpenError> {
        processor::check()?;
        let disk = Disk::open(path, 0)?;
        let families =
            Family::ALL.map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family)));
        let mut options = options(false);
        options.create_missing_column_families(false);
        options.set_max_open_files(-1);
        let db = DB::open_cf_descriptors_read_only(&options, path, families, false).map_err(|error| {
            OpenError::Store(explain("opening", path.display().to_string(), &disk, &error))
        })?;
        Ok(Self { db, disk })
    }

    pub(crate) fn path(&self) -> &Path {
        self.disk.path()
    }

    pub(crate) fn space(&self) -> Result<Space, StoreError> {
        self.disk.space()
    }

    /// Names a place for an error message.
    pub(crate) fn place(&self, family: Family, key: &[u8]) -> String {
        let key = match <[u8; 8]>::try_from(key) {
            Ok(number) if family != Family::Derived && family != Family::Meta => {
                u64::from_be_bytes(number).to_string()
            }
            _ => format!("'{}'", key.escape_ascii()),
        };
        format!("{}, column family {}, key {key}", self.path().display(), family.name())
    }

    pub(crate) fn corrupt(&self, family: Family, key: &[u8], detail: String) -> StoreError {
        StoreError::Corrupt { place: self.place(family, key), detail, remedy: REMEDY }
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        self.db
            .cf_handle(family.name())
            .ok_or_else(|| self.corrupt(family, b"", "the column family is missing".to_owned()))
    }

    fn failed(&self, operation: &'static str, family: Family, error: &rocksdb::Error) -> StoreError {
        let place = format!("{}, column family {}", self.path().display(), family.name());
        explain(operation, place, &self.disk, error)
    }

    pub(crate) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self
            .db
            .get_pinned_cf(self.family(family)?, key)
            .map_err(|error| explain("reading", self.place(family, key), &self.disk, &error))?;
        match found {
            None => Ok(None),
            Some(sealed) => Ok(Some(self.open_seal(family, key, &sealed)?.to_vec())),
        }
    }

    fn open_seal<'a>(&self, family: Family, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
        unseal(key, sealed).ok_or_else(|| self.corrupt(family, key, "its checksum does not match".to_owned()))
    }

    /// Key-value pairs from `from` on, in order, below `before` if given.
    pub(crate) fn rows(
        &self,
        family: Family,
        from: &[u8],
        before: Option<Vec<u8>>,
    ) -> Result<Rows<'_>, StoreError> {
        let mut options = ReadOptions::default();
        if let Some(before) = before {
            options.set_iterate_upper_bound(before);
        }
        let mut at = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        at.seek(from);
        Ok(Rows { database: self, family, at, is_begun: false })
    }

    /// The same, each copied.
    pub(crate) fn scan(
        &self,
        family: Family,
        from: &[u8],
        before: Option<Vec<u8>>,
    ) -> Result<impl Iterator<Item = Result<Pair, StoreError>> + '_, StoreError> {
        let mut rows = self.rows(family, from, before)?;
        Ok(std::iter::from_fn(move || {
            let row = rows.next().transpose()?;
            Some(row.map(|(key, value)| (key.to_vec(), value.to_vec())))
        }))
    }

    /// The first key from `from` on.
    pub(crate) fn first_key(&self, family: Family, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut keys = self.db.raw_iterator_cf(self.family(family)?);
        keys.seek(from);
        keys.status().map_err(|error| self.failed("reading", family, &error))?;
        Ok(keys.key().map(<[u8]>::to_vec))
    }

    /// Writes values in order of their keys, of which none is there, as a file of its own, which
    /// `RocksDB` then takes in as it is: neither its log nor its memory sees them, so that other writes
    /// wait for a moment only, however many they are. All are there or none; they are on the disk on
    /// return.
    pub(crate) fn ingest<'a>(
        &self,
        family: Family,
        file: &Path,
        pairs: impl Iterator<Item = (Vec<u8>, &'a [u8])>,
    ) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        let failed = |error: rocksdb::Error| {
            // What is left of it goes when the store is opened, if not now.
            drop(std::fs::remove_file(file));
            self.failed("writing a file", family, &error)
        };
        let options = family_options(family);
        let mut writer = SstFileWriter::create(&options);
        writer.open(file).map_err(failed)?;
        let mut sealed = Vec::new();
        for (key, value) in pairs {
            seal_into(&mut sealed, &key, value);
            writer.put(&key, &sealed).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        self.db.ingest_external_file_cf_opts(handle, &options, vec![file]).map_err(failed)
    }

    /// Gives back the files that hold nothing but keys from `from` through `last`, whose deletion is
    /// synced: the files are gone at once, whatever becomes of the log.
    pub(crate) fn drop_files(&self, family: Family, from: &[u8], last: &[u8]) -> Result<(), StoreError> {
        self.db
            .delete_file_in_range_cf(self.family(family)?, from, last)
            .map_err(|error| self.failed("deleting files", family, &error))
    }

    /// Writes a family's memtable out to a file, or has that begun.
    pub(crate) fn flush(&self, family: Family, wait: bool) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        self.db
            .flush_cf_opt(self.family(family)?, &options)
            .map_err(|error| self.failed("flushing", family, &error))
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        self.batch_of(0)
    }

    /// One that is not moved in memory while it takes up to so many bytes.
    pub(crate) fn batch_of(&self, bytes: usize) -> Batch<'_> {
        let inner = WriteBatch::with_capacity_bytes(bytes);
        Batch { database: self, inner, sealed: Vec::new() }
    }

    /// Refuses when the disk has no room for `bytes` more.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        self.disk.check_room(bytes)
    }
}

impl Batch<'_> {
    pub(crate) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let handle = self.database.family(family)?;
        seal_into(&mut self.sealed, key, value);
        self.inner.put_cf(handle, key, &self.sealed);
        Ok(())
    }

    pub(crate) fn delete(&mut self, family: Family, key: &[u8]) -> Result<(), StoreError> {
        let handle = self.database.family(family)?;
        self.inner.delete_cf(handle, key);
        Ok(())
    }

    /// Deletes from `from` on, below `before`.
    pub(crate) fn delete_range(
        &mut self,
        family: Family,
        from: &[u8],
        before: &[u8],
    ) -> Result<(), StoreError> {
        let handle = self.database.family(family)?;
        self.inner.delete_range_cf(handle, from, before);
        Ok(())
    }

    /// Writes all or nothing; on disk on return iff `sync`. Whatever fails here
    /// is final: `RocksDB` takes no more writes after a failed sync, because it
    /// cannot know what reached the disk.
    pub(crate) fn commit(self, sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.write(&options, if sync { "synced write" } else { "write" })
    }

    /// The same without the write-ahead log, for what is derived of what it holds: a crash takes back the
    /// latest of these writes, and never an earlier one without all that follow it. None is kept before what
    /// was written with the log earlier.
    // `RocksDB` syncs all of the log that is older than a memtable before it takes in the file that the memtable
    // is flushed to (`FlushMemTableToOutputFile`).
    pub(crate) fn commit_unlogged(self) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.write(&options, "write")
    }

    fn write(self, options: &WriteOptions, operation: &'static str) -> Result<(), StoreError> {
        let database = self.database;
        database.db.write_opt(self.inner, options).map_err(|error| {
            let place = database.path().display().to_string();
            explain(operation, place, &database.disk, &error)
        })
    }
}

fn explain(operation: &'static str, place: String, disk: &Disk, error: &rocksdb::Error) -> StoreError {
    let words = error.to_string();
    if error.kind() == ErrorKind::Corruption {
        return StoreError::Corrupt { place, detail: words, remedy: REMEDY };
    }
    if words.contains("No space left") || words.contains("Disk quota exceeded") {
        return StoreError::DiskFull {
            path: disk.path().display().to_string(),
            free_bytes: disk.free_bytes().unwrap_or_default(),
            needed_bytes: limits::DISK_RESERVE_BYTES,
        };
    }
    StoreError::Io { operation, place, detail: words }
}
