//! Makes a package: plans, streams every tensor, describes, seals.
use super::{
    Declared, MANIFEST_FILE, Manifest, Opened, PackageError, SCHEMA, Source, Tool,
    compressed_tensors::{self, Description},
    format::engines,
    stream::{Stream, copied_hash, source_hash},
    trust::{CARD_FILE, SOURCE_CARD, card, quantized_tensors},
};
use crate::{
    checkpoint::{
        FileRecord, Folder, OutputDir, ShardWriter, TensorPlan, Written, sha256, write_file,
    },
    linalg::Team,
    model::{ModelSpec, part_name},
    progress::{Progress, Unit},
    quantize::{self, Plan, Settings, rtn::Rtn},
    scheme::TensorScheme,
    tensor::RawTensor,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path, time::Instant};

/// A model to quantize and how.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The float model.
    pub opened: &'a Opened,
    /// What is wanted.
    pub settings: &'a Settings,
    /// Stored in the manifest: the resolved recipe.
    pub recipe: &'a Value,
    /// Threads.
    pub team: &'a Team,
    /// Told of the work.
    pub progress: &'a dyn Progress,
}

/// A package that was made.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of the source's tensors.
    pub source_bytes: u64,
    /// Bits per weight over all tensors, scales and zero points counted.
    pub bits_per_weight: f64,
    /// Bits per weight over the quantized tensors.
    pub quantized_bits_per_weight: Option<f64>,
    /// Number of quantized weights.
    pub quantized: usize,
    /// Tensors that the architecture does not know, carried through.
    pub carried: Vec<String>,
    /// Tensors that the architecture does not know and that could not be carried.
    pub left_out: Vec<String>,
    /// What the compressed-tensors standard does not say.
    pub beyond_standard: Vec<String>,
    /// Hash of the source's tensors.
    pub source_sha256: String,
}

impl Summary {
    /// What a manifest and the plan that it fulfils tell.
    pub fn new(manifest: &Manifest, plan: &Plan) -> Self {
        Self {
            bytes: manifest.files.values().map(|file| file.bytes).sum::<u64>()
                + manifest.sealed().len() as u64,
            source_bytes: manifest.source.bytes,
            bits_per_weight: plan.bits_per_weight(),
            quantized_bits_per_weight: plan.quantized_bits_per_weight(),
            quantized: manifest.quantized.len(),
            carried: manifest.carried.clone(),
            left_out: manifest.left_out.clone(),
            beyond_standard: manifest.beyond_standard.clone(),
            source_sha256: manifest.source.sha256.clone(),
        }
    }
}

/// What a job will take.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Estimate {
    /// Size of the package: tensors and copied files.
    pub package_bytes: u64,
    /// Free disk space that is needed while it is written.
    pub disk_bytes: u64,
    /// Peak resident memory; `None` where it is not known.
    pub memory_bytes: Option<u64>,
    /// Time of rounding to nearest, tensor by tensor, see [`Job::seconds`]; `None` where more is done.
    pub seconds: Option<f64>,
}

/// Bytes per second of reading and writing that estimates assume.
const DISK_RATE: f64 = 300e6;
/// Weights that the measurement quantizes.
const PROBE: usize = 1 << 20;

impl Job<'_> {
    /// What will become of each tensor.
    pub fn plan(&self) -> Result<Plan, PackageError> {
        Ok(quantize::plan(&self.opened.model, self.settings)?)
    }

    /// Size of the package: tensors and copied files.
    pub fn package_bytes(&self, plan: &Plan) -> Result<u64, PackageError> {
        let folder = &self.opened.folder;
        // Headers, index, manifest: some 600 bytes a tensor.
        let mut bytes = plan.bytes() + 600 * plan.tensors.len() as u64;
        for name in folder.side_files()? {
            bytes += folder.read(&name)?.map_or(0, |bytes| bytes.len() as u64);
        }
        Ok(bytes)
    }

    /// Time of rounding to nearest, tensor by tensor, by a short measurement on this machine and
    /// 300 MB/s for the disk.
    pub fn seconds(&self, plan: &Plan, package_bytes: u64) -> f64 {
        let quantized = || plan.tensors.values().filter(|it| it.scheme.is_some());
        let elements: u64 = quantized().map(quantize::Planned::elements).sum();
        let threads = self.team.threads();
        let most = quantized().max_by_key(|it| it.bytes).and_then(|it| it.scheme);
        let work = most.map_or(0.0, |it| self.probe(it)) * elements as f64 / threads as f64;
        work.max((plan.source_bytes() + package_bytes) as f64 / DISK_RATE)
    }

    /// Seconds per weight on one thread.
    fn probe(&self, scheme: TensorScheme) -> f64 {
        let columns = scheme.weights.group_size(4096).next_multiple_of(128);
        let rows = (PROBE / columns).max(1);
        let values: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.37).sin()).collect();
        let rtn = self.rtn(scheme);
        let start = Instant::now();
        std::hint::black_box(rtn.tensor(std::hint::black_box(&values), [rows, columns]));
        start.elapsed().as_secs_f64() / values.len() as f64
    }

    fn rtn(&self, scheme: TensorScheme) -> Rtn {
        let (grid, scale_type) = (scheme.weights, scheme.scale_type);
        Rtn { grid, scale_type, method: self.settings.method() }
    }

    /// Makes the package. It appears at `target` when it is complete.
    pub fn write(&self, target: &Path, force: bool) -> Result<Summary, PackageError> {
        let plan = self.plan()?;
        refuse_over_input(self.opened, target)?;
        let output = OutputDir::create(target, force)?;
        self.progress.start("quantize", plan.source_bytes(), Unit::Bytes);
        let written = self.stream(&plan, &output);
        self.progress.finish();
        let (written, source, values) = written?;
        let schemes = plan.schemes();
        let mut model = self.opened.model.clone();
        model.spec.kv_cache = self.settings.kv_cache;
        let description = compressed_tensors::describe(&model, &schemes, self.settings.method());
        let mut manifest = self.describe(&plan, description, &output, (written, source))?;
        manifest.set_values(values);
        output.write(MANIFEST_FILE, manifest.sealed().as_bytes())?;
        output.commit()?;
        Ok(Summary::new(&manifest, &plan))
    }

    /// Writes every tensor; what was written, the hash of what was read, and those of the values
    /// that the codes of each weight stand for.
    fn stream(
        &self,
        plan: &Plan,
        output: &OutputDir,
    ) -> Result<(Written, String, BTreeMap<String, String>), PackageError> {
        let raw = &self.opened.model.weights.raw;
        let parts = plan.tensors.iter().flat_map(|(name, it)| parts(name, &raw[name], it.scheme));
        let mut writer = ShardWriter::create(output, parts.collect(), self.settings.shard_size.0);
        let mut stream = Stream {
            writer: &mut writer,
            team: self.team,
            progress: self.progress,
            allow_nonfinite: self.settings.allow_nonfinite,
        };
        let (mut hashes, mut values) = (BTreeMap::<&str, String>::new(), BTreeMap::new());
        for (name, planned) in &plan.tensors {
            match planned.scheme {
                None => stream.copy(name, &raw[name])?,
                Some(scheme) => {
                    let (read, made) =
                        stream.quantize(name, &raw[name], scheme, self.rtn(scheme))?;
                    hashes.insert(name, read);
                    values.insert(name.clone(), made);
                }
            }
        }
        let written = writer.finish()?;
        for name in plan.tensors.keys() {
            hashes.entry(name).or_insert_with(|| copied_hash(written.tensors.get(name)));
        }
        let source = source_hash(raw.iter().map(|(name, it)| (name, it, &*hashes[&**name])));
        Ok((written, source, values))
    }

    /// Writes the files beside the weights and describes everything.
    fn describe(
        &self,
        plan: &Plan,
        description: Description,
        output: &OutputDir,
        (written, source): (Written, String),
    ) -> Result<Manifest, PackageError> {
        let mut files = written.files;
        files.extend(copy_side_files(self.opened, output)?);
        let config = format!("{:#}\n", description.config);
        files.insert("config.json".into(), output.write("config.json", config.as_bytes())?);
        let schemes = plan.schemes();
        let mut manifest = Manifest {
            schema: SCHEMA,
            tool: Tool::default(),
            source: Source::of(self.opened, source),
            recipe: self.recipe.clone(),
            activations: BTreeMap::new(),
            export: None,
            quantized: quantized_tensors(&schemes),
            beyond_standard: description.beyond,
            carried: plan.carried(),
            left_out: Vec::new(),
            evaluation: None,
            files,
            tensors: written.tensors,
            sha256: String::new(),
        };
        let mut spec = self.opened.model.spec.clone();
        spec.kv_cache = self.settings.kv_cache;
        let of = Declared { spec: &spec, config: &description.config, schemes: &schemes };
        let engines = engines(of);
        let card = output.write(CARD_FILE, card(&manifest, &engines).as_bytes())?;
        manifest.files.insert(CARD_FILE.to_owned(), card);
        Ok(manifest)
    }
}

/// The stored tensors that one tensor of the checkpoint becomes.
fn parts(name: &str, raw: &RawTensor, scheme: Option<TensorScheme>) -> Vec<TensorPlan> {
    let shape = <[usize; 2]>::try_from(raw.shape.as_slice()).ok();
    let parts = scheme.zip(shape).and_then(|(it, shape)| it.parts(shape));
    match parts {
        Some(parts) => parts
            .into_iter()
            .map(|part| TensorPlan {
                name: part_name(name, part.suffix),
                dtype: part.dtype,
                shape: part.shape,
            })
            .collect(),
        None => {
            vec![TensorPlan { name: name.to_owned(), dtype: raw.dtype, shape: raw.shape.clone() }]
        }
    }
}

/// An output does not replace the folder that it is made from.
pub fn refuse_over_input(opened: &Opened, target: &Path) -> Result<(), PackageError> {
    match (opened.folder.path(), target.canonicalize()) {
        (Some(source), Ok(place)) if source.starts_with(&place) => {
            Err(PackageError::OverInput { path: target.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Copies what stands beside the weights. The source's own card gets another name, and a card that
/// this program wrote is left behind.
pub(super) fn copy_side_files(
    opened: &Opened,
    output: &OutputDir,
) -> Result<BTreeMap<String, FileRecord>, PackageError> {
    let (mut files, folder) = (BTreeMap::new(), &opened.folder);
    for name in folder.side_files()? {
        let ours = opened.manifest.is_some();
        let target = match name.as_str() {
            CARD_FILE if ours => continue,
            CARD_FILE => SOURCE_CARD,
            other => other,
        };
        if let Some(bytes) = folder.read(&name)? {
            files.insert(target.to_owned(), output.write(target, &bytes)?);
        }
    }
    Ok(files)
}

/// Adds what the package cost to its manifest.
pub fn set_evaluation(package: &str, evaluation: Value) -> Result<(), PackageError> {
    let folder = Folder::open(package)?;
    let missing = || PackageError::NoManifest { folder: package.to_owned() };
    let mut manifest = Manifest::read(&folder)?.ok_or_else(missing)?;
    manifest.evaluation = Some(evaluation);
    let path = folder.path().ok_or_else(missing)?;
    let config = folder.config()?;
    if let Ok(spec) = ModelSpec::from_config(&config) {
        let schemes = manifest.schemes();
        let of = Declared { spec: &spec, config: &config, schemes: &schemes };
        let card = card(&manifest, &engines(of));
        write_file(&path.join(CARD_FILE), card.as_bytes(), true)?;
        let (bytes, sha256) = (card.len() as u64, sha256(card.as_bytes()));
        manifest.files.insert(CARD_FILE.to_owned(), FileRecord { bytes, sha256 });
    }
    // An interruption between the two leaves a card that does not fit, which `verify` finds.
    Ok(write_file(&path.join(MANIFEST_FILE), manifest.sealed().as_bytes(), true)?)
}
