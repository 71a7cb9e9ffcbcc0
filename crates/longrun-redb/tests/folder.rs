//! redb keeps the rules of stores in a folder: reopen, kills, second handles, damage, limits, full disks.

use longrun_redb::{FolderOptions, Redb, RedbOptions};

fn options(folder: FolderOptions) -> RedbOptions {
    RedbOptions::default().folder(folder).cache_bytes(1 << 20)
}

longrun_folder::folder_rules!(Redb, options);
