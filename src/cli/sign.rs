//! `milm-compress sign`: says who made a package.
use super::{Context, Outcome, output, verify};
use crate::{
    checkpoint::{OutputFile, write_file},
    package,
    tensor::read_text,
};
use anyhow::Context as _;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// Sign a package, or make keys for it
///
/// The signature covers milm.json, and with it every file and tensor, the hash of the source, the
/// recipe and the evaluation. It is in minisign's form: `verify --key` checks it, and so does
/// `minisign -Vm milm.json`. A package that is not as it was made is not signed.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  \
    milm-compress sign --new-key release\n  \
    milm-compress sign ./package --key release.key\n  \
    milm-compress verify ./package --key release.pub")]
pub(super) struct Args {
    /// The package
    #[arg(required_unless_present = "new_key")]
    package: Option<String>,
    /// Secret key, as `--new-key` or minisign made it
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    key: Option<PathBuf>,
    /// File that holds the password of an encrypted key
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Make a pair of keys, NAME.key (secret, not encrypted) and NAME.pub
    #[arg(long, value_name = "NAME", conflicts_with_all = ["package", "key"])]
    new_key: Option<PathBuf>,
}

pub(super) fn run(args: &Args, context: &Context) -> anyhow::Result<Outcome> {
    if let Some(name) = &args.new_key {
        return new_key(name, context);
    }
    let package = args.package.as_deref().context("the package is missing")?;
    let key = args.key.as_deref().context("--key is missing")?;
    let secret = read_text(key, "name a key that `sign --new-key` or minisign made")?;
    let password = args.password_file.as_deref();
    let password = password.map(|it| read_text(it, "name a file that holds the password"));
    let password = password.transpose()?;
    let password = password.map(|it| it.trim_end_matches(['\r', '\n']).to_owned());
    verify::intact(package, "signed", context)?;
    package::sign(package, &secret, password)?;
    output::text(&format!("{package}/{}\n", package::SIGNATURE_FILE))?;
    Ok(Outcome::Done)
}

fn new_key(name: &Path, context: &Context) -> anyhow::Result<Outcome> {
    let with = |ending: &str| {
        let mut path = name.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let (secret_file, public_file) = (with(".key"), with(".pub"));
    for path in [&secret_file, &public_file] {
        OutputFile::check(path, context.force)?;
    }
    let (public, secret) = package::new_keys()?;
    write_secret(&secret_file, &secret)?;
    write_file(&public_file, public.as_bytes(), context.force)?;
    context.note("whoever has the secret key can sign: keep it out of repositories");
    output::text(&format!("{}\n{}\n", secret_file.display(), public_file.display()))?;
    Ok(Outcome::Done)
}

/// Writes a file that nobody else may read, from its first moment on.
fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let cannot = || format!("cannot write `{}`", path.display());
    if path.exists() {
        std::fs::remove_file(path).with_context(cannot)?;
    }
    options.open(path).and_then(|mut file| file.write_all(text.as_bytes())).with_context(cannot)
}
