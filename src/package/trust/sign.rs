//! Signatures of packages in minisign's form (Ed25519), which the stock `minisign` checks too.
//!
//! What is signed is the manifest `milm.json`: it holds the hash of every file and tensor, the
//! source's hash, the recipe and the evaluation, so its signature stands for all of them. The
//! signature lies beside it as `milm.json.minisig`. Two signatures of one
//! package differ: the library mixes randomness in, against faults of the machine that signs.
use super::MANIFEST_FILE;
use crate::checkpoint::{Folder, sha256, write_file};
use crate::package::PackageError;
use minisign::{KeyPair, PublicKeyBox, SecretKeyBox, SignatureBox};
use std::io::Cursor;

/// The signature's file name.
pub const SIGNATURE_FILE: &str = "milm.json.minisig";

/// A new pair of keys as the texts of their files: public, secret (not encrypted).
pub fn new_keys() -> Result<(String, String), PackageError> {
    let failed = |error: minisign::PError| key_error("new key", &error);
    let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair().map_err(failed)?;
    let public = pk.to_box().map_err(failed)?.into_string();
    let secret = sk.to_box(None).map_err(failed)?.into_string();
    Ok((public, secret))
}

/// Signs a package with the text of a secret key; `password` opens an encrypted one. Replaces a
/// signature that is there.
pub fn sign(package: &str, secret: &str, password: Option<String>) -> Result<(), PackageError> {
    let folder = Folder::open(package)?;
    let manifest = manifest(&folder)?;
    let failed = |error: minisign::PError| key_error("secret key", &error);
    let secret = SecretKeyBox::from_string(secret).map_err(failed)?;
    let secret = match password {
        Some(password) => secret.into_secret_key(Some(password)),
        None => secret.into_unencrypted_secret_key(),
    };
    let secret = secret.map_err(failed)?;
    let trusted = format!("{MANIFEST_FILE} sha256:{}", sha256(&manifest));
    let untrusted = format!("signature of {MANIFEST_FILE}");
    let signature =
        minisign::sign(None, &secret, Cursor::new(&*manifest), Some(&trusted), Some(&untrusted));
    let signature = signature.map_err(failed)?.into_string();
    let no_manifest = || PackageError::NoManifest { folder: package.to_owned() };
    let path = folder.path().ok_or_else(no_manifest)?.join(SIGNATURE_FILE);
    Ok(write_file(&path, signature.as_bytes(), true)?)
}

/// Checks the signature of a package's manifest with the text of a public key.
pub fn check_signature(package: &str, public: &str) -> Result<(), PackageError> {
    let folder = Folder::open(package)?;
    let failed = |error: minisign::PError| key_error("public key", &error);
    let public = PublicKeyBox::from_string(public).and_then(PublicKeyBox::into_public_key);
    let public = public.map_err(failed)?;
    let unsigned = || PackageError::Unsigned { folder: package.to_owned() };
    let text = folder.text(SIGNATURE_FILE)?.ok_or_else(unsigned)?;
    let wrong = |error: minisign::PError| PackageError::Signature {
        folder: package.to_owned(),
        reason: error.to_string(),
    };
    let malformed = || PackageError::Signature {
        folder: package.to_owned(),
        reason: format!("`{SIGNATURE_FILE}` has not the form of a signature"),
    };
    well_formed(&text).then_some(()).ok_or_else(malformed)?;
    let signature = SignatureBox::from_string(&text).map_err(wrong)?;
    let manifest = manifest(&folder)?;
    minisign::verify(&public, &signature, Cursor::new(&*manifest), true, false, false)
        .map_err(wrong)
}

/// Whether the signatures in a text have the lengths that the library takes for granted: an algorithm,
/// a key's number and 64 bytes, then 64 bytes over that and the trusted comment, both in base64.
fn well_formed(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let has = |at: usize, length: usize, padding: &str| {
        let found = lines.get(at).filter(|it| it.len() == length);
        found.and_then(|it| it.strip_suffix(padding)).is_some_and(|it| !it.ends_with('='))
    };
    has(1, 100, "=") && has(3, 88, "==")
}

fn manifest(folder: &Folder) -> Result<crate::tensor::Bytes, PackageError> {
    let missing = || PackageError::NoManifest { folder: folder.name().to_owned() };
    folder.read(MANIFEST_FILE)?.ok_or_else(missing)
}

fn key_error(what: &'static str, error: &minisign::PError) -> PackageError {
    PackageError::Key { what, reason: error.to_string() }
}
