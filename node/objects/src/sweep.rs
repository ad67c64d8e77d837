//! Deletes from a folder what killed uploads left there. Listings do not show it: an object is written under
//! its name with `#` and a number until it is complete.
use std::{io, path::Path, time::SystemTime};

use crate::{
    error::{Kind, ObjectError},
    store::{Store, limit_for},
};

impl Store {
    /// Deletes parts of objects below `folder` that were last written to before `before`: so long ago that no
    /// running upload owns them. Only parts of objects whose name `is_own` accepts. Returns how many; 0 for a
    /// store that is not a folder.
    ///
    /// # Errors
    /// See [`ObjectError`].
    pub async fn sweep(
        &self,
        folder: &str,
        before: SystemTime,
        is_own: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<u64, ObjectError> {
        const DOING: &str = "looking for parts of";
        let Some(dir) = &self.inner.folder else {
            return Ok(0);
        };
        let path = self.path(folder, DOING)?;
        let dir = dir.join(path.as_ref());
        let name = folder.to_owned();
        let sweeping = tokio::task::spawn_blocking(move || sweep(&dir, &name, before, &is_own));
        let ended = self.run(&path, DOING, limit_for(0), async { Ok(sweeping.await) });
        let failed = |why: String| self.error(&path, DOING, Kind::Other, why);
        let swept = ended.await?.map_err(|e| failed(e.to_string()))?;
        swept.map_err(|e| failed(e.to_string()))
    }
}

fn sweep(
    dir: &Path,
    name: &str,
    before: SystemTime,
    is_own: &dyn Fn(&str) -> bool,
) -> io::Result<u64> {
    let mut swept = 0;
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let own = entry.file_name();
        let Some(own) = own.to_str() else { continue };
        let below = match name {
            "" => own.to_owned(),
            name => format!("{name}/{own}"),
        };
        if entry.file_type()?.is_dir() {
            swept += sweep(&entry.path(), &below, before, is_own)?;
            continue;
        }
        if !of_object(&below).is_some_and(is_own) || entry.metadata()?.modified()? > before {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Ok(()) => swept += 1,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(swept)
}

/// The object that this file is a part of.
fn of_object(name: &str) -> Option<&str> {
    let (object, number) = name.rsplit_once('#')?;
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some(object)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::target::{Folder, Target};

    #[tokio::test]
    async fn only_old_parts_of_own_objects_are_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::File(Folder {
            dir: dir.path().to_owned(),
            name: "p".into(),
        });
        let store = target.open().unwrap();
        let bases = dir.path().join("p/line/bases");
        std::fs::create_dir_all(&bases).unwrap();
        let fresh = std::fs::metadata(&bases).unwrap().modified().unwrap();
        let before = fresh - Duration::from_secs(24 * 3600);
        let old = before - Duration::from_secs(60);
        for (name, is_old) in [
            ("1.db#1", true),
            ("2.db#17", true),
            ("3.db#1", false),
            ("4.db", true),
            ("other#1", true),
            ("5.db#x", true),
        ] {
            let file = std::fs::File::create(bases.join(name)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
        }
        let is_own = |name: &str| name.starts_with("line/bases/") && name.ends_with(".db");
        assert_eq!(store.sweep("line", before, is_own).await.unwrap(), 2);
        let mut left: Vec<_> = std::fs::read_dir(&bases)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["3.db#1", "4.db", "5.db#x", "other#1"]);
        assert_eq!(store.sweep("none", before, is_own).await.unwrap(), 0);
    }
}
