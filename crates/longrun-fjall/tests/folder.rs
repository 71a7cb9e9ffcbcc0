//! fjall keeps the rules of stores in a folder: reopen, kills, second handles, damage, limits, full disks.

use longrun_fjall::{Fjall, FjallOptions, FolderOptions};

fn options(folder: FolderOptions) -> FjallOptions {
    FjallOptions::default().folder(folder).cache_bytes(1 << 20).memtable_bytes(1 << 20)
}

longrun_folder::folder_rules!(Fjall, options);
