//! Each test runs on a folder and in memory: the same promises.
use super::*;
use crate::target::{Folder, Target};

type Tested = Result<(), Box<dyn std::error::Error>>;

fn stores() -> Result<(tempfile::TempDir, [Store; 2]), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let target = Target::File(Folder {
        dir: dir.path().join("a/b"),
        name: "below/prefix".into(),
    });
    assert!(
        target.lacks_folder() && target.open().is_err(),
        "opening creates nothing"
    );
    target.make_folder()?;
    Ok((dir, [target.open()?, Store::memory()?]))
}

#[tokio::test]
async fn a_folder_that_vanished_is_not_made_again() -> Tested {
    let (dir, [store, _]) = stores()?;
    store.create("x/1", "1".into()).await?;
    let (there, away) = (dir.path().join("a/b"), dir.path().join("away"));
    std::fs::rename(&there, &away)?;
    let failed = [
        store.create("x/2", "2".into()).await.map(drop),
        store.put("x/2", "2".into(), &Metadata::new()).await,
        store.writer("x/2", &Metadata::new(), None).await.map(drop),
    ];
    for failed in failed {
        let why = failed.err().map(|e| e.to_string()).unwrap_or_default();
        assert!(why.contains("the folder is not there"), "{why}");
    }
    assert!(!there.exists());
    std::fs::rename(&away, &there)?;
    assert_eq!(store.create("x/2", "2".into()).await?, Created::Yes);
    assert_eq!(store.list("", None).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn an_object_is_created_once() -> Tested {
    let (_dir, stores) = stores()?;
    for store in stores {
        let tries = (0..20_u8).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.create("x/once", Bytes::from(vec![n; 9])).await })
        });
        let tries: Vec<_> = tries.collect();
        let mut winners = Vec::new();
        for (n, outcome) in tries.into_iter().enumerate() {
            if outcome.await?? == Created::Yes {
                winners.push(n as u8);
            }
        }
        assert_eq!(winners.len(), 1, "{store:?}");
        let bytes = store.get("x/once", 100).await?;
        assert_eq!(Some(&bytes[0]), winners.first());
        // The same bytes again: a repeated attempt whose answer was lost.
        assert_eq!(store.create("x/once", bytes).await?, Created::Yes);
        store.prove_create_once().await?;
        let names = store.list("", None).await?;
        assert_eq!(names.len(), 1, "{names:?}");
    }
    Ok(())
}

#[tokio::test]
async fn listing_is_ordered_and_begins_after_a_name() -> Tested {
    let (_dir, stores) = stores()?;
    for store in stores {
        for name in ["s/3", "s/1", "s/2", "t/1", "s/10"] {
            store.put(name, Bytes::from(name), &Metadata::new()).await?;
        }
        let names = |entries: Vec<Entry>| entries.into_iter().map(|e| e.name).collect::<Vec<_>>();
        assert_eq!(
            names(store.list("s", None).await?),
            ["s/1", "s/10", "s/2", "s/3"]
        );
        assert_eq!(names(store.list("s", Some("s/10")).await?), ["s/2", "s/3"]);
        assert_eq!(names(store.list("none", None).await?), Vec::<String>::new());
        assert_eq!(store.folders("").await?, ["s", "t"]);
        assert_eq!(names(store.below("t")?.list("", None).await?), ["1"]);
        store.delete("s/1").await?;
        store.delete("s/1").await?;
        assert_eq!(store.head("s/1").await?, None);
        assert_eq!(
            store.get("s/1", 9).await.map_err(|e| e.kind),
            Err(Kind::NotFound)
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_update_needs_the_version_that_was_seen() -> Tested {
    let (_dir, stores) = stores()?;
    for store in stores {
        store.put("m", Bytes::from("one"), &Metadata::new()).await?;
        let seen = store.head("m").await?.ok_or("no m")?.version;
        assert_eq!(
            store.update("m", Bytes::from("twoo"), &seen).await?,
            Updated::Yes
        );
        assert_eq!(
            store.update("m", Bytes::from("three"), &seen).await?,
            Updated::No
        );
        assert_eq!(store.get("m", 9).await?, "twoo");
        assert_eq!(
            store.get("m", 3).await.map_err(|e| e.kind),
            Err(Kind::TooLarge)
        );
        assert_eq!(store.get_range("m", 1, 3).await?, "wo");
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_is_seen_when_it_is_whole() -> Tested {
    let (_dir, stores) = stores()?;
    for store in stores {
        let chunk: Vec<u8> = (0..1_000_003_u32).map(|n| n as u8).collect();
        let mut writer = store.writer("big", &Metadata::new(), None).await?;
        for _ in 0..20 {
            writer.write(&chunk).await?;
        }
        assert_eq!(store.head("big").await?, None);
        assert_eq!(writer.finish().await?, 20_000_060);
        let mut reader = store.read("big", 1_000_003 * 19 + 5).await?;
        let mut found = Vec::new();
        while let Some(bytes) = reader.next().await? {
            found.extend_from_slice(&bytes);
        }
        assert_eq!(found.as_slice(), &chunk[5..]);

        let mut given_up = store.writer("given-up", &Metadata::new(), None).await?;
        given_up.write(&vec![1; 9 << 20]).await?;
        given_up.abort().await;
        assert_eq!(store.head("given-up").await?, None);
        let empty = store.writer("empty", &Metadata::new(), None).await?;
        assert_eq!(empty.finish().await?, 0);
        assert_eq!(store.get("empty", 0).await?.len(), 0);
        assert_eq!(store.read("empty", 0).await?.next().await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn an_error_names_the_object_and_the_place() -> Tested {
    let (dir, [folder, _]) = stores()?;
    let error = folder.get("x/y", 1).await.err().ok_or("no error")?;
    let text = error.to_string();
    assert!(
        text.contains("'below/prefix/x/y'") && text.contains("folder "),
        "{text}"
    );
    std::fs::write(dir.path().join("a/b/below"), "in the way")?;
    let text = folder.put("z", Bytes::new(), &Metadata::new()).await;
    assert!(text.is_err());
    Ok(())
}
