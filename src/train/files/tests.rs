//! What may be a model's file, and that what lies in the lake is what was left.

use hydromesh_core::model::{Program, RowsFormat};

use super::*;

fn write(folder: &Path, path: &str, text: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn refusal(folder: &Path) -> String {
    let error = collect_files(folder).unwrap_err();
    assert_eq!(error.code(), "HM-T015");
    error.to_string()
}

#[test]
fn plain_files_are_a_model_and_nothing_else_is() {
    let home = tempfile::tempdir().unwrap();
    let model = home.path().join("model");
    assert!(refusal(&model).contains("no longer a folder"));
    fs::create_dir(&model).unwrap();
    assert!(refusal(&model).contains("no file"));
    write(&model, "weights.csv", "1,2\n");
    write(&model, "deep/er/notes.txt", "");
    let files = collect_files(&model).unwrap();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["deep/er/notes.txt", "weights.csv"]);
    assert_eq!(files["weights.csv"].bytes, 4);
    assert_eq!(
        files["deep/er/notes.txt"].sha256,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
    for (name, target, says) in [
        ("latest", "weights.csv", "latest is a symbolic link"),
        ("deep/rows", "/work/rows", "deep/rows is a symbolic link"),
    ] {
        std::os::unix::fs::symlink(target, model.join(name)).unwrap();
        assert!(refusal(&model).contains(says), "{}", refusal(&model));
        fs::remove_file(model.join(name)).unwrap();
    }
    for name in [".hidden", "a b", "é", &"x".repeat(101)] {
        write(&model, name, "");
        let why = refusal(&model);
        assert!(why.contains("other characters") && !why.contains('é'), "{why}");
        fs::remove_file(model.join(name)).unwrap();
    }
    File::create(model.join("large")).unwrap().set_len(MOST_BYTES).unwrap();
    assert!(refusal(&model).contains("larger than 256 MiB"));
    fs::remove_file(model.join("large")).unwrap();
    write(&model, "a/a/a/a/a/a/a/a/a/deepest", "");
    assert!(refusal(&model).contains("more than 8 folders"));
    fs::remove_dir_all(model.join("a")).unwrap();
    // A link in the place of the folder is not followed either.
    fs::rename(&model, home.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", &model).unwrap();
    assert!(refusal(&model).contains("no longer a folder"));
}

#[test]
fn what_is_kept_is_whole_and_what_was_changed_since_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (lake, left) = (home.path().join("lake"), home.path().join("left"));
    write(&left, "weights.csv", "1,2\n");
    write(&left, "deep/notes.txt", "good");
    let files = collect_files(&left).unwrap();
    let artefact = "models/risk/churn-model/v0001.json";
    let folder = keep_files(&lake, artefact, &left, &files).unwrap();
    assert!(folder.starts_with("models/risk/churn-model/v0001-"), "{folder}");
    assert_eq!(keep_files(&lake, artefact, &left, &files).unwrap(), folder, "the same again");
    let program = ModelProgram {
        trainer: TrainerCommand {
            program: Program {
                command: vec!["python3".into(), "train.py".into()],
                timeout: "30m".parse().unwrap(),
                memory_mib: 2048,
                rows: RowsFormat::Csv,
            },
            network: false,
        },
        shown: BTreeMap::from([("train.py".to_owned(), "abc".to_owned())]),
        key: "model 1".to_owned(),
        folder: folder.clone(),
        files: files.clone(),
    };
    let copied = |to: &str| {
        let to = home.path().join(to);
        fs::create_dir(&to).unwrap();
        copy_files(&lake, &program, &to).map(|()| collect_files(&to).unwrap())
    };
    assert_eq!(copied("first").unwrap(), files);

    // Another attempt that came to something else has a folder of its own, and takes nothing away until it is the one.
    write(&left, "weights.csv", "1,3\n");
    let others = collect_files(&left).unwrap();
    let other = keep_files(&lake, artefact, &left, &others).unwrap();
    assert_ne!(other, folder);
    assert_eq!(copied("second").unwrap(), files);
    write(&lake, "models/risk/churn-model/v0010-x/a", "of another version");
    tidy_files(&lake, artefact, &folder);
    let mut there: Vec<_> = fs::read_dir(lake.join("models/risk/churn-model"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, [folder.rsplit('/').next().unwrap(), "v0010-x"]);

    // Damage, and what is no longer there.
    write(&lake, &format!("{folder}/weights.csv"), "9,9\n");
    let error = copied("third").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!((error.code(), source.as_str()), ("HM-T007", "weights.csv is not as it was written"));
    assert!(error.to_string().contains(&folder), "{error}");
    fs::remove_file(lake.join(&folder).join("weights.csv")).unwrap();
    assert!(
        std::error::Error::source(&copied("fourth").unwrap_err())
            .unwrap()
            .to_string()
            .contains("weights.csv")
    );
    // Training again mends it.
    write(&left, "weights.csv", "1,2\n");
    assert_eq!(keep_files(&lake, artefact, &left, &files).unwrap(), folder);
    assert_eq!(copied("fifth").unwrap(), files);

    assert_eq!(program.check(), Ok(()));
    let elsewhere = ModelProgram { folder: "models/../../etc".into(), ..program.clone() };
    assert!(elsewhere.check().unwrap_err().contains("no path"));
    let empty = ModelProgram { files: BTreeMap::new(), ..program };
    assert!(empty.check().is_err());
}
