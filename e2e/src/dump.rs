//! Generates SQL dumps of any size with foreign keys, indexes, triggers, full-text search, JSON, blobs and
//! many scripts.
use std::{
    hash::{DefaultHasher, Hasher},
    io::{self, Write},
};

use anyhow::{Result, ensure};

use crate::{client::Client, seed::Seed};

/// Words in several scripts and of several UTF-8 lengths, with quotes that need doubling.
const WORDS: [&str; 16] = [
    "river",
    "O'Brien",
    "straße",
    "naïve",
    "Ελλάδα",
    "данные",
    "数据库",
    "データ",
    "한국어",
    "مرحبا",
    "שלום",
    "🚀",
    "👩‍👧",
    "semi;colon",
    "double\"quote",
    "--dash",
];

const SCHEMA: &str = "\
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT NOT NULL, born DATE, profile JSON);
CREATE TABLE article(id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE, title TEXT, body TEXT, price REAL, draft BOOLEAN, cover BLOB);
CREATE TABLE tag(article INTEGER REFERENCES article(id), word TEXT COLLATE NOCASE, PRIMARY KEY(article, word)) WITHOUT ROWID;
CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, article INTEGER, length INTEGER);
CREATE VIRTUAL TABLE search USING fts5(title, body, content='article', content_rowid='id');
";

/// Indexes, triggers and views come after the rows, as in a dump made by SQLite. The trigger fires only for
/// the statements after it.
const TAIL: &str = "\
CREATE INDEX article_author ON article(author, price DESC);
CREATE INDEX article_draft ON article(title) WHERE draft;
CREATE INDEX author_city ON author(json_extract(profile, '$.city'));
CREATE TRIGGER article_added AFTER INSERT ON article BEGIN
  INSERT INTO search(rowid, title, body) VALUES (new.id, new.title, new.body);
  INSERT INTO audit(article, length) VALUES (new.id, length(new.body));
END;
CREATE VIEW dear AS SELECT title, price FROM article WHERE price > 500;
INSERT INTO search(search) VALUES('rebuild');
INSERT INTO article VALUES(1000000001, 1, 'last; word', 'after the trigger', 1.5, 1, x'00ff');
COMMIT;
";

/// What a generated dump contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of `author`.
    pub authors: u64,
    /// Rows of `article`.
    pub articles: u64,
    /// Rows of `tag`.
    pub tags: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Writes a dump of at least `bytes` bytes. The same seed produces the same dump.
///
/// # Errors
/// If writing to `out` fails.
pub fn generate(out: &mut dyn Write, bytes: u64, seed: u64) -> io::Result<Counts> {
    let mut seed = Seed::new(seed);
    let mut counts = Counts::default();
    put(out, &mut counts, SCHEMA)?;
    while counts.bytes < bytes {
        if counts.articles == counts.authors * 10 {
            counts.authors += 1;
            let author = author_line(&mut seed, counts.authors);
            put(out, &mut counts, &author)?;
        }
        counts.articles += 1;
        let article = article_line(&mut seed, counts.articles, counts.authors);
        put(out, &mut counts, &article)?;
        for number in 0..seed.below(3) {
            counts.tags += 1;
            let word = format!("{}{number}", WORDS[seed.index(WORDS.len())]);
            let line = format!(
                "INSERT INTO tag VALUES({},{});\n",
                counts.articles,
                quoted(&word)
            );
            put(out, &mut counts, &line)?;
        }
    }
    put(out, &mut counts, TAIL)?;
    counts.articles += 1;
    Ok(counts)
}

fn put(out: &mut dyn Write, counts: &mut Counts, text: &str) -> io::Result<()> {
    counts.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
    out.write_all(text.as_bytes())
}

fn author_line(seed: &mut Seed, id: u64) -> String {
    let profile = serde_json::json!({"city": WORDS[seed.index(WORDS.len())], "tags": [seed.below(10), null], "n": {"x": 1.25}});
    format!(
        "INSERT INTO author VALUES({id},{},'19{:02}-0{}-1{}',{});\n",
        quoted(&sentence(seed, 3)),
        seed.below(100),
        1 + seed.below(9),
        seed.below(10),
        quoted(&profile.to_string())
    )
}

fn article_line(seed: &mut Seed, id: u64, author: u64) -> String {
    let words = 20 + seed.below(200);
    let cover: String = (0..16 + seed.below(64))
        .map(|_| format!("{:02x}", seed.below(256)))
        .collect();
    let price = if seed.below(10) == 0 {
        "NULL".to_owned()
    } else {
        format!("{}.{:02}", seed.below(1000), seed.below(100))
    };
    format!(
        "INSERT INTO article VALUES({id},{author},{},{},{price},{},x'{cover}');\n",
        quoted(&sentence(seed, 5)),
        quoted(&sentence(seed, words)),
        seed.below(2)
    )
}

fn sentence(seed: &mut Seed, words: u64) -> String {
    (0..words)
        .map(|_| WORDS[seed.index(WORDS.len())])
        .collect::<Vec<_>>()
        .join(" ")
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Hash of a node's whole database as an SQL dump, read from that node alone.
///
/// # Errors
/// If the node does not return its database.
pub fn checksum(client: &mut Client) -> Result<u64> {
    let reply = client.get("/db/backup?fmt=sql&noleader")?;
    ensure!(
        reply.status == 200,
        "backup at {}: {} {}",
        client.addr(),
        reply.status,
        reply.text()
    );
    ensure!(
        reply.body.ends_with(b"COMMIT;\n"),
        "an unfinished dump from {}",
        client.addr()
    );
    let mut hasher = DefaultHasher::new();
    hasher.write(&reply.body);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlite_takes_the_dump() {
        let mut text = Vec::new();
        let counts = generate(&mut text, 200_000, 5).unwrap();
        assert!(counts.bytes >= 200_000 && u64::try_from(text.len()).unwrap() == counts.bytes);
        let database = rusqlite::Connection::open_in_memory().unwrap();
        database
            .execute_batch(std::str::from_utf8(&text).unwrap())
            .unwrap();
        let count = |sql: &str| {
            database
                .query_row(sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        let expected = |number: u64| i64::try_from(number).unwrap();
        assert_eq!(
            count("SELECT count(*) FROM author"),
            expected(counts.authors)
        );
        assert_eq!(
            count("SELECT count(*) FROM article"),
            expected(counts.articles)
        );
        assert_eq!(count("SELECT count(*) FROM tag"), expected(counts.tags));
        assert_eq!(
            count("SELECT count(*) FROM audit"),
            1,
            "the trigger fires only on what follows it"
        );
        assert!(count("SELECT count(*) FROM search WHERE search MATCH 'river'") > 10);
        assert_eq!(
            count("SELECT count(*) FROM search WHERE search MATCH 'trigger'"),
            1
        );
        assert_eq!(count("SELECT count(*) FROM pragma_foreign_key_check"), 0);
        assert_eq!(
            count("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check<>'ok'"),
            0
        );
    }

    #[test]
    fn equal_seeds_give_equal_dumps() {
        let dump = |seed| {
            let mut text = Vec::new();
            generate(&mut text, 20_000, seed).unwrap();
            text
        };
        assert_eq!(dump(1), dump(1));
        assert_ne!(dump(1), dump(2));
    }
}
