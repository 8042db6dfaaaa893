//! What of a rounded model learns the float model's distributions.
use super::{
    PipelineError, basis::Basis, distil::Distil, journal::Journal, rounding::Quantize, streams,
};
use crate::{
    calibrate::{CalibrationSet, HiddenStates},
    forward::{ForwardError, Head, Reference},
    model::Model,
    quantize::{LayerReport, Streams, Tune},
    runtime::Kernels,
    train::{Learns, Lessons, Noted, Settings, Student},
};

impl Quantize<'_> {
    /// Tunes the rounded model on the windows that are set aside to learn from, or on those that it was rounded
    /// on where there are none; those held out decide when it is best. Both models' streams of the latter behind the
    /// last block, and the losses on the way.
    pub(super) fn tune(
        &self,
        what: Tune,
        basis: &Basis<'_>,
        model: &mut Model,
        journal: &Journal<LayerReport>,
    ) -> Result<(Streams, Vec<Noted>), PipelineError> {
        let CalibrationSet { windows, held_out, learnt, .. } = self.calibration;
        let windows = if learnt.is_empty() { windows } else { learnt };
        let all = [windows.as_slice(), held_out].concat();
        let mut float = self.float_streams(basis, &all)?;
        let head = Head::load(&basis.outline, &Reference).map_err(ForwardError::from)?;
        let settings = Settings {
            epochs: self.settings.tuning.tune_epochs,
            learning_rate: self.settings.tuning.tune_rate,
            ..Settings::default()
        };
        let learnt = windows.len();
        let distil = Distil {
            name: "tune",
            lessons: Lessons { windows: &all, learnt, streams: &float, head: &head },
            settings: &settings,
            seed: self.seed,
            team: self.team,
            progress: self.progress,
        };
        let learns = match what {
            Tune::Scales => Learns::Scales,
        };
        let window = all.first().map_or(0, Vec::len);
        let load = || Student::load(model, window, learns);
        let (tensors, notes) = distil.run(&load, journal)?;
        model.weights.raw.extend(tensors);
        let aids = ("measure", self.team, self.progress);
        let quantized = streams::last((model, &Kernels::new()), held_out, aids)?;
        let float = float.split_off(learnt);
        Ok((Streams { float, quantized }, notes))
    }

    /// The float model's streams behind its last block.
    fn float_streams(
        &self,
        basis: &Basis<'_>,
        windows: &[Vec<u32>],
    ) -> Result<HiddenStates, PipelineError> {
        let through = |b, states: &mut _| {
            let part = Model::part(&basis.outline.spec, basis.block(b)?);
            basis.source.release(b);
            streams::carry((&part, &Reference), b, states, self.team)
        };
        streams::last_by(&basis.outline, windows, ("read", self.progress), through)
    }
}
