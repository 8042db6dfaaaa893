//! A bill of materials of a package: `CycloneDX` 1.6 with a model card, from the manifest alone.
//!
//! The same package gives the same bytes: there is no time in it, and its serial number is made from
//! the manifest's hash.
use super::{MANIFEST_FILE, Manifest, Tool};
use crate::checkpoint::FileRecord;
use crate::package::{Opened, PackageError};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// What the parts are called within the bill.
const MODEL: &str = "model";
const BASE: &str = "base-model";

/// Licenses as model hubs write them, and as SPDX does.
const LICENSES: &[(&str, &str)] = &[
    ("agpl-3.0", "AGPL-3.0-only"),
    ("apache-2.0", "Apache-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("mit", "MIT"),
    ("mpl-2.0", "MPL-2.0"),
];

/// The bill of a package that has a manifest.
pub fn sbom(opened: &Opened) -> Result<Value, PackageError> {
    let folder = || opened.folder.name().to_owned();
    let missing = || PackageError::NoManifest { folder: folder() };
    let manifest = opened.manifest.as_ref().ok_or_else(missing)?;
    let data = datasets(manifest);
    let files = manifest.files.iter().map(|(name, record)| file(name, record));
    let all: Vec<Value> = files.chain(data.iter().cloned()).collect();
    let refs = |all: &[Value]| all.iter().map(|it| it["bom-ref"].clone()).collect::<Vec<_>>();
    let mut needs = vec![json!(BASE)];
    needs.extend(refs(&all));
    let Tool { name, version } = &manifest.tool;
    let serial = Uuid::new_v5(&Uuid::NAMESPACE_OID, manifest.sha256.as_bytes());
    let base = base(manifest);
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial.urn().to_string(),
        "version": 1,
        "metadata": {
            "tools": { "components": [{ "type": "application", "name": name, "version": version }] },
            "component": model(opened, manifest, &refs(&data)),
        },
        "components": std::iter::once(base).chain(all).collect::<Vec<_>>(),
        "dependencies": [{ "ref": MODEL, "dependsOn": needs }, { "ref": BASE }],
    }))
}

/// The model that the package holds.
fn model(opened: &Opened, manifest: &Manifest, data: &[Value]) -> Value {
    let config = &opened.model.config;
    let architecture = config["architectures"][0].as_str().unwrap_or(opened.model.spec.family);
    let quantized = !manifest.quantized.is_empty();
    let made = if quantized { "quantized" } else { "changed" };
    let mut properties = vec![
        property("milm:manifest", MANIFEST_FILE),
        property("milm:recipe", &manifest.recipe.to_string()),
    ];
    let beyond = manifest.beyond_standard.iter();
    properties.extend(beyond.map(|it| property("milm:beyond-standard", it)));
    let mut card = json!({
        "modelParameters": {
            "task": "text-generation",
            "architectureFamily": "transformer",
            "modelArchitecture": architecture,
            "datasets": data.iter().map(|it| json!({ "ref": it })).collect::<Vec<_>>(),
            "inputs": [{ "format": "text" }],
            "outputs": [{ "format": "text" }],
        },
    });
    let metrics = metrics(manifest.evaluation.as_ref());
    if !metrics.is_empty() {
        card["quantitativeAnalysis"] = json!({ "performanceMetrics": metrics });
    }
    let mut component = json!({
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": format!("{}, {made}", manifest.source.name),
        "version": manifest.sha256.chars().take(12).collect::<String>(),
        "description": format!("{} weights, {made} from the base model", opened.model.spec.parameters()),
        // That of the manifest, which holds the hash of every file and tensor.
        "hashes": [{ "alg": "SHA-256", "content": manifest.sha256 }],
        "pedigree": { "ancestors": [ancestor(manifest)] },
        "modelCard": card,
        "properties": properties,
    });
    license(manifest, &mut component);
    component
}

/// The model that the package was made from.
fn base(manifest: &Manifest) -> Value {
    let mut component = ancestor(manifest);
    component["bom-ref"] = BASE.into();
    component["properties"] = json!([
        property(
            "milm:hashed",
            "lines NAME DTYPE [SHAPE] SHA256 of its tensors, in the order of names"
        ),
        property("milm:bytes", &manifest.source.bytes.to_string()),
        property("milm:parameters", &manifest.source.parameters.to_string()),
    ]);
    license(manifest, &mut component);
    component
}

fn ancestor(manifest: &Manifest) -> Value {
    json!({
        "type": "machine-learning-model",
        "name": manifest.source.name,
        "hashes": [{ "alg": "SHA-256", "content": manifest.source.sha256 }],
    })
}

fn license(manifest: &Manifest, component: &mut Value) {
    let Some(name) = &manifest.source.license else { return };
    let known = LICENSES.iter().find(|(hub, _)| name.eq_ignore_ascii_case(hub));
    let license = known.map_or_else(|| json!({ "name": name }), |(_, id)| json!({ "id": id }));
    component["licenses"] = json!([{ "license": license }]);
}

fn file(name: &str, record: &FileRecord) -> Value {
    json!({
        "type": "file",
        "bom-ref": format!("file:{name}"),
        "name": name,
        "hashes": [{ "alg": "SHA-256", "content": record.sha256 }],
        "properties": [property("milm:bytes", &record.bytes.to_string())],
    })
}

fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// The texts that the recipe was calibrated on, each once.
fn datasets(manifest: &Manifest) -> Vec<Value> {
    let mut found = Map::new();
    collect(&manifest.recipe, &mut found);
    let each = found.into_iter().enumerate().map(|(i, (hash, source))| {
        let name = source["name"].as_str().unwrap_or("text");
        // A path tells nothing to others, and may tell too much.
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        let samples = source["samples"].as_u64().unwrap_or(0);
        json!({
            "type": "data",
            "bom-ref": format!("dataset:{}", i + 1),
            "name": name,
            "description": format!("text that the model was calibrated on, {samples} samples"),
            "hashes": [{ "alg": "SHA-256", "content": hash }],
            "data": [{ "type": "dataset", "name": name }],
        })
    });
    each.collect()
}

/// Sources of calibrations anywhere in a recipe, by the hash of their bytes.
fn collect(value: &Value, found: &mut Map<String, Value>) {
    match value {
        Value::Array(all) => all.iter().for_each(|it| collect(it, found)),
        Value::Object(map) => {
            for source in map.get("sources").and_then(Value::as_array).into_iter().flatten() {
                let hash = source["sha256"].as_str().filter(|hash| hash.len() == 64);
                if let Some(hash) = hash.filter(|_| source["name"].is_string()) {
                    found.entry(hash).or_insert_with(|| source.clone());
                }
            }
            map.values().for_each(|it| collect(it, found));
        }
        _ => {}
    }
}

/// Numbers of the evaluation.
fn metrics(evaluation: Option<&Value>) -> Vec<Value> {
    let numbers = evaluation.and_then(Value::as_object).into_iter().flatten();
    let numbers = numbers.filter(|(key, value)| value.is_number() && *key != "schema");
    numbers.map(|(key, value)| json!({ "type": key, "value": value.to_string() })).collect()
}
