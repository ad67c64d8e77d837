//! Request bytes, built before the clock starts.
use crate::seed::Seed;

/// Number of different requests in one set: enough that no cache in the node covers all of them.
const VARIANTS: usize = 1024;
/// Rows that are loaded before point reads are measured.
pub const ROWS: u64 = 10_000;

/// Creates and fills the table `t(id INTEGER PRIMARY KEY, v TEXT)` with ids 1 to [`ROWS`].
pub const SETUP: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<10000) INSERT OR IGNORE INTO t SELECT i, printf('value-%020d', i) FROM n",
];

/// Parameterized inserts of a single row.
#[must_use]
pub fn inserts() -> Vec<Vec<u8>> {
    let mut seed = Seed::new(1);
    (0..VARIANTS)
        .map(|_| {
            post(
                "/db/execute",
                &format!(
                    "[[\"INSERT INTO t(v) VALUES(?)\",\"{:026}\"]]",
                    seed.next_u64()
                ),
            )
        })
        .collect()
}

/// Length of the values of [`noise`].
pub const NOISE_BYTES: usize = 192;

/// Values of random hexadecimal digits, so that at most half of them can be compressed away.
#[must_use]
pub fn noise() -> Vec<String> {
    let mut seed = Seed::new(3);
    let mut value = || -> String {
        let words = (0..NOISE_BYTES / 16).map(|_| format!("{:016x}", seed.next_u64()));
        words.collect()
    };
    (0..VARIANTS * 256).map(|_| value()).collect()
}

/// Inserts of [`noise`].
#[must_use]
pub fn noisy_inserts() -> Vec<Vec<u8>> {
    let values = noise();
    let body = |value: &String| format!("[[\"INSERT INTO t(v) VALUES(?)\",\"{value}\"]]");
    values
        .iter()
        .map(|value| post("/db/execute", &body(value)))
        .collect()
}

/// Point reads by primary key at a read consistency level.
#[must_use]
pub fn selects(level: &str) -> Vec<Vec<u8>> {
    let mut seed = Seed::new(2);
    let path = format!("/db/query?level={level}");
    (0..VARIANTS)
        .map(|_| {
            post(
                &path,
                &format!(
                    "[[\"SELECT v FROM t WHERE id=?\",{}]]",
                    1 + seed.below(ROWS)
                ),
            )
        })
        .collect()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole() {
        let first = String::from_utf8(inserts().swap_remove(0)).unwrap();
        let (head, body) = first.split_once("\r\n\r\n").unwrap();
        assert!(
            head.ends_with(&format!("Content-Length: {}", body.len())),
            "{head}"
        );
        assert!(
            serde_json::from_str::<serde_json::Value>(body).is_ok(),
            "{body}"
        );
        assert!(
            String::from_utf8(selects("weak").swap_remove(0))
                .unwrap()
                .starts_with("POST /db/query?level=weak ")
        );
    }
}
