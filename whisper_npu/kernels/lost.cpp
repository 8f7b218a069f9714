// A mapped file that another program cuts short takes its pages with it: whoever reads them is sent
// SIGBUS, and so is who reads from a disk that fails. Nothing can be computed then; but a person
// can be told which file it was. Only functions that POSIX allows in a signal handler are called.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstring>

namespace whisper_npu {
namespace {

const int kExitCode = 5;  // of a ModelError

void say(const char* text, size_t length) {
  while (length > 0) {
    const ssize_t written = write(STDERR_FILENO, text, length);
    if (written <= 0) return;
    text += written;
    length -= (size_t)written;
  }
}

void say(const char* text) { say(text, strlen(text)); }

// Of a line "from-to rw-p offset device inode   name": the name, if it maps the address; or null.
const char* mapped_by(const char* line, uintptr_t address) {
  uintptr_t bounds[2] = {0, 0};
  for (int i = 0; i < 2; ++i, ++line)
    for (; *line && *line != '-' && *line != ' '; ++line)
      bounds[i] = bounds[i] * 16 + (uintptr_t)(*line <= '9' ? *line - '0' : *line - 'a' + 10);
  if (address < bounds[0] || address >= bounds[1]) return nullptr;
  const char* name = strchr(line, '/');
  return name ? name : "a file";
}

void say_file(uintptr_t address) {
  static char line[8192];
  const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  size_t length = 0;
  char c;
  while (maps >= 0 && read(maps, &c, 1) == 1) {
    if (c != '\n') {
      if (length + 1 < sizeof line) line[length++] = c;
      continue;
    }
    line[length] = 0;
    length = 0;
    if (const char* name = mapped_by(line, address)) return say(name);
  }
  say("a file");
}

void tell(int, siginfo_t* info, void*) {
  static std::atomic_flag told = ATOMIC_FLAG_INIT;
  if (info->si_code != BUS_ADRERR) {  // not of a file: die of it when it happens again
    signal(SIGBUS, SIG_DFL);
    return;
  }
  if (told.test_and_set())
    for (;;) pause();  // another thread is about to end us
  say("whisper-npu: ");
  say_file((uintptr_t)info->si_addr);
  say(" was cut short while it was in use, or its disk failed: what was finished before is kept, "
      "run the same command again\n");
  _exit(kExitCode);
}

}  // namespace

// From now on; a handler that somebody else has set stays.
void name_files_cut_short() {
  struct sigaction now;
  if (sigaction(SIGBUS, nullptr, &now) != 0 || now.sa_handler != SIG_DFL) return;
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = tell;
  ours.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace whisper_npu
