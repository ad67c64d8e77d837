//! Configurations, and files that are fetched.
use super::*;

fn parse(text: &str) -> Result<AutoRestore, String> {
    AutoRestore::parse(text, &|name| (name == "BUCKET").then(|| "from-env".into()))
}

#[test]
fn configurations_and_what_is_said_of_wrong_ones() {
    let file = r#""type":"file","sub":{"dir":"/b","name":"n"}"#;
    let archive = r#""archive":{"type":"file","sub":{"dir":"/a"}}"#;
    let read = parse(r#"{"version":1,"type":"s3","sub":{"bucket":"$BUCKET","path":"p"},"timeout":"5s","continue_on_failure":true}"#).unwrap();
    assert_eq!(
        (read.timeout, read.continue_on_failure),
        (Duration::from_secs(5), true)
    );
    assert!(
        matches!(read.from, From::Object(ref target) if target.to_string() == "s3://from-env/p")
    );
    assert_eq!(parse(&format!("{{{file}}}")).unwrap().timeout, FILE_TIMEOUT);
    let to = |extra: &str| {
        let text = format!(r#"{{"type":"archive","sub":{{{archive}{extra}}}}}"#);
        parse(&text).map(|read| match read.from {
            From::Archive { to, .. } => to,
            From::Object(_) => panic!("no archive"),
        })
    };
    assert_eq!(to("").unwrap(), plan::Target::End);
    assert_eq!(to(r#","to_index":7"#).unwrap(), plan::Target::Index(7));
    assert_eq!(
        to(r#","to_time":"1970-01-01T00:00:01Z""#).unwrap(),
        plan::Target::Time(Moment(1_000_000))
    );
    for (got, says) in [
        (
            to(r#","to_index":7,"to_time":"1970-01-01T00:00:01Z""#).map(drop),
            "not both",
        ),
        (to(r#","to_time":"noon""#).map(drop), "sub.to_time"),
        (to(r#","to_indx":7"#).map(drop), "to_indx"),
        (parse("{").map(drop), "JSON"),
        (
            parse(r#"{"type":"tape","sub":{}}"#).map(drop),
            "unsupported storage type",
        ),
        (
            parse(&format!("{{\"version\":2,{file}}}")).map(drop),
            "invalid version",
        ),
        (
            parse(&format!("{{{file},\"timeout\":0}}")).map(drop),
            "invalid timeout",
        ),
        (
            parse(&format!("{{{file},\"timeout\":\"x\"}}")).map(drop),
            "invalid timeout",
        ),
        (
            parse(&format!("{{{file},\"interval\":\"1h\"}}")).map(drop),
            "interval",
        ),
    ] {
        let error = got.unwrap_err();
        assert!(error.contains(says), "{error}, not {says}");
    }
}

#[tokio::test]
async fn only_sound_databases_are_fetched_packed_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("store");
    let scratch = dir.path().join("scratch");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::create_dir_all(&scratch).unwrap();
    let made = dir.path().join("db");
    let (db, _) = Database::open(node_db::Options {
        dir: made.clone(),
        foreign_keys: false,
        readers: 1,
        max_readers: 1,
        slow_statement: None,
    })
    .unwrap();
    let entry = node_db::Entry {
        position: node_db::Position { term: 1, index: 1 },
        work: node_db::Work::Nothing,
        reply_to: node_db::ReplyTo::Nobody,
    };
    db.apply(vec![entry]).await.unwrap().unwrap();
    db.checkpoint().await.unwrap().unwrap();
    db.close();
    let plain = std::fs::read(node_db::offline::release(&made).unwrap()).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    for (name, content, says) in [
        ("plain", plain.clone(), None),
        ("gzip", gzip.clone(), None),
        (
            "cut",
            gzip[..gzip.len() / 2].to_vec(),
            Some("gzip is damaged"),
        ),
        (
            "short",
            plain[..plain.len() - 7].to_vec(),
            Some("damaged SQLite file, or none"),
        ),
        (
            "text",
            b"CREATE TABLE t(x)".to_vec(),
            Some("damaged SQLite file, or none"),
        ),
        ("empty", Vec::new(), Some("damaged SQLite file, or none")),
    ] {
        std::fs::write(place.join(name), content).unwrap();
        let config = format!(
            r#"{{"type":"file","sub":{{"dir":"{}","name":"{name}"}}}}"#,
            place.display()
        );
        let fetched = parse(&config).unwrap().fetch(&scratch, false).await;
        match says {
            None => assert_eq!(std::fs::read(fetched.unwrap().0).unwrap(), plain, "{name}"),
            Some(says) => {
                let error = fetched.unwrap_err();
                assert!(error.contains(says) && error.contains(name), "{error}");
            }
        }
        let left = std::fs::read_dir(&scratch).unwrap().count();
        assert_eq!(left, 0, "{name} left files");
    }
}
