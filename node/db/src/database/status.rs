//! Facts about the database for people, as JSON: sizes, pragmas, connections, compile options. Shapes are
//! rqlite's.
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use serde_json::{Map, Value, json};

use crate::{database::inner::Inner, files::layout, sql::dates, sqlite::connection::open_plain};

/// See [`crate::Database::status`]. Fields that cannot be read are left out, because status must always
/// answer.
pub(crate) fn status(inner: &Inner) -> Value {
    let size = layout::len(&inner.files.main).unwrap_or(0);
    let path = inner.files.main.display().to_string();
    let foreign_keys = if inner.options.foreign_keys { "1" } else { "0" };
    let pragmas = |autocheckpoint: &str| {
        json!({
            "busy_timeout": "5000",
            "foreign_keys": foreign_keys,
            "journal_mode": "wal",
            "synchronous": "0",
            "wal_autocheckpoint": autocheckpoint,
        })
    };
    let (running, waiting) = inner.readers.load();
    let mut status = json!({
        "version": rusqlite::version(),
        "path": path,
        "size": size,
        "wal_size": layout::len(&inner.files.wal).unwrap_or(0),
        "last_modified": last_modified(inner),
        "extensions": [],
        "rw_dsn": format!("file:{path}?_fk={}&_journal=WAL&_sync=0", inner.options.foreign_keys),
        "ro_dsn": format!("file:{path}?_fk={}&_sync=0&mode=ro", inner.options.foreign_keys),
        "pragmas": { "rw": pragmas("0"), "ro": pragmas("1000") },
        "transaction": { "rw": false, "ro": false },
        "conn_pool_stats": {
            "rw": { "max_open_connections": 1, "open_connections": 1 },
            "ro": { "max_open_connections": inner.options.readers, "in_use": running, "wait_count": waiting },
        },
    });
    if let (Some(status), Some(read)) = (status.as_object_mut(), read_from_database(inner)) {
        status.extend(read);
    }
    status
}

/// Status must not wait for a checkpoint or a replacement: while new reads are held back, these fields are
/// left out.
fn read_from_database(inner: &Inner) -> Option<Map<String, Value>> {
    let _visit = inner.readers.try_acquire()?;
    let conn = open_plain(&inner.files.main).ok()?;
    let pages = pragma(&conn, "page_count")?;
    let db_size = pages * pragma(&conn, "page_size")?;
    let mut memory = Map::new();
    let names = [
        "cache_size",
        "freelist_count",
        "hard_heap_limit",
        "max_page_count",
        "page_count",
        "page_size",
        "soft_heap_limit",
    ];
    for name in names {
        memory.insert(name.to_owned(), pragma(&conn, name)?.into());
    }
    let mut fields = Map::new();
    fields.insert("db_size".to_owned(), db_size.into());
    fields.insert(
        "db_size_friendly".to_owned(),
        friendly(db_size.unsigned_abs()).into(),
    );
    fields.insert("mem_stats".to_owned(), memory.into());
    fields.insert("compile_options".to_owned(), compile_options(&conn).into());
    Some(fields)
}

fn pragma(conn: &Connection, name: &str) -> Option<i64> {
    conn.pragma_query_value(None, name, |row| row.get(0)).ok()
}

fn compile_options(conn: &Connection) -> Vec<String> {
    let read = || -> rusqlite::Result<Vec<String>> {
        conn.prepare("PRAGMA compile_options")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    read().unwrap_or_default()
}

fn last_modified(inner: &Inner) -> String {
    let modified = |path| {
        std::fs::metadata(path)
            .and_then(|meta| meta.modified())
            .ok()
    };
    let newest: Option<SystemTime> = modified(&inner.files.main).max(modified(&inner.files.wal));
    let seconds = newest
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_secs());
    dates::from_integer(i64::try_from(seconds).unwrap_or(0))
}

/// A size for humans: powers of 1000, one decimal place below ten.
fn friendly(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut divisor = 1000_u64;
    while bytes / divisor >= 1000 && unit + 1 < UNITS.len() {
        divisor *= 1000;
        unit += 1;
    }
    let tenths = bytes / (divisor / 10);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        format!("{} {}", tenths / 10, UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (4096, "4.0 kB"),
            (70_000, "70 kB"),
            (999_999, "999 kB"),
            (1_500_000, "1.5 MB"),
            (u64::MAX, "18 EB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(friendly(bytes), expected);
        }
    }
}
