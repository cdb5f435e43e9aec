//! A process that runs a unit's kernels: a launch goes in, what it wrote comes out.

use super::{Arg, Fault, FaultKind, Fence, Launch, Memory, Schedule};
use std::io::{Read, Result, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The number of no memory: the argument is a word.
const NO_MEMORY: u64 = u64::MAX;

/// A process that waits for launches.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
}

impl Worker {
    pub(super) fn start(executable: &Path) -> std::result::Result<Worker, Fault> {
        let lost =
            |what: String| Fault { kind: FaultKind::Process, message: format!("{}: {what}", executable.display()) };
        let mut command = Command::new(executable);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| lost(e.to_string()))?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Worker { child, input, output }),
            _ => Err(lost("has no input and output".to_owned())),
        }
    }

    pub(super) fn launch(
        &mut self,
        number: usize,
        launch: &Launch<'_>,
        memory: &mut [Memory],
    ) -> std::result::Result<(), Fault> {
        // The process may end while it is written to; what it says is why.
        let sent = self.input.write_all(&request(number, launch, memory)).and_then(|()| self.input.flush());
        let answer = self.answer(memory);
        match answer {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(fault),
            Err(e) => {
                let e = sent.err().unwrap_or(e);
                let status = self.child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
                let message = format!("{}: its process has ended with {status} ({e})", launch.kernel);
                Err(Fault { kind: FaultKind::Process, message })
            }
        }
    }

    fn answer(&mut self, memory: &mut [Memory]) -> Result<Option<Fault>> {
        if self.word()? == 0 {
            let mut read = Vec::new();
            for m in memory.iter().filter(|m| m.writable) {
                let mut bytes = vec![0; m.bytes.len()];
                self.output.read_exact(&mut bytes)?;
                read.push(bytes);
            }
            memory.iter_mut().filter(|m| m.writable).zip(read).for_each(|(m, bytes)| m.bytes = bytes);
            return Ok(None);
        }
        let kinds = [FaultKind::Memory, FaultKind::Barrier, FaultKind::Warp, FaultKind::Trap, FaultKind::Endless];
        let kind = kinds.get(self.word()? as usize).copied().unwrap_or(FaultKind::Process);
        let mut message = vec![0; self.word()? as usize];
        self.output.read_exact(&mut message)?;
        Ok(Some(Fault { kind, message: String::from_utf8_lossy(&message).into_owned() }))
    }

    fn word(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.output.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What `serve` of the host reads.
fn request(number: usize, launch: &Launch<'_>, memory: &[Memory]) -> Vec<u8> {
    let schedule = match launch.schedule {
        Schedule::Fair => 0,
        Schedule::Reversed => 1,
        Schedule::EvenAhead => 2,
        Schedule::OddAhead => 3,
    };
    let fence = match launch.fence {
        Fence::End => 0,
        Fence::Start => 1,
    };
    let mut words =
        vec![number as u64, schedule, fence, launch.blocks, launch.threads.into(), launch.shared_bytes.into()];
    words.extend([memory.len() as u64, launch.args.len() as u64]);
    for m in memory {
        words.extend([m.bytes.len() as u64, u64::from(m.writable)]);
    }
    for arg in launch.args {
        words.extend(match *arg {
            Arg::Word(word) => [NO_MEMORY, word],
            Arg::Pointer { memory, offset } => [memory as u64, offset],
        });
    }
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    memory.iter().for_each(|m| bytes.extend(&m.bytes));
    bytes
}
