//! A program that runs as it is. One test: `Program::event` reaps every child of this process, another test's too.

use lastack_gateway::program::Program;
use lastack_gateway::sandbox::ProgramEvent;

#[test]
fn a_program_is_found_until_it_has_ended_and_one_that_is_not_there_is_an_error() {
    let error = Program::start(&"no-such-program-anywhere".into(), &[]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let program = Program::start(&"sleep".into(), &["60".into()]).expect("sleep");
    assert!(program.processes().contains(&program.pid()));
    program.signal(libc::SIGKILL);
    let event = std::iter::repeat_with(|| {
        std::thread::yield_now();
        program.event()
    });
    assert_eq!(event.flatten().next(), Some(ProgramEvent::Exited(128 + 9)));
    assert!(!program.processes().contains(&program.pid()));
}
