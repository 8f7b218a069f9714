#include "pool.h"

#include <sched.h>

namespace whisper_npu {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr int kSpins = 2000;      // about 20 to 80 microseconds
constexpr int kYields = 200;      // then give the core away, then sleep where that is possible

// The calling thread stays on these cores while this lives. Where that fails it runs anywhere.
class Pinned {
 public:
  explicit Pinned(const std::vector<int>& cores) : active_(!cores.empty()) {
    if (!active_) return;
    cpu_set_t wanted;
    CPU_ZERO(&wanted);
    for (int core : cores) CPU_SET(core, &wanted);
    active_ = sched_getaffinity(0, sizeof before_, &before_) == 0 &&
              sched_setaffinity(0, sizeof wanted, &wanted) == 0;
  }
  ~Pinned() {
    if (active_) sched_setaffinity(0, sizeof before_, &before_);
  }

 private:
  bool active_;
  cpu_set_t before_;
};

}  // namespace

Pool::Pool(int threads, std::vector<int> pinned) : threads_(threads), pinned_(std::move(pinned)) {
  for (int id = 1; id < threads; ++id) workers_.emplace_back([this, id] { work(id); });
}

Pool::~Pool() {
  stop_ = true;
  {
    std::lock_guard<std::mutex> lock(sleep_);
    started_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::work(int id) {
  const Pinned pinned(pinned_);
  for (int seen = 0;;) {
    for (int i = 0; started_.load(std::memory_order_acquire) == seen; ++i) {
      if (i < kSpins) {
        relax();
      } else if (i < kSpins + kYields) {
        std::this_thread::yield();
      } else {
        std::unique_lock<std::mutex> lock(sleep_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return started_.load() != seen; });
        sleeping_.fetch_sub(1);
      }
    }
    ++seen;
    if (stop_) return;
    task_(context_, id);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void Pool::run(void (*task)(void*, int), void* context) {
  std::lock_guard<std::mutex> one(caller_);
  const Pinned pinned(pinned_);
  task_ = task;
  context_ = context;
  next_ = 0;
  running_ = threads_ - 1;
  started_.fetch_add(1);  // sequentially consistent with sleeping_: no wake-up is lost
  if (sleeping_.load() > 0) {
    std::lock_guard<std::mutex> lock(sleep_);
    wake_.notify_all();
  }
  task(context, 0);
  for (int i = 0; running_.load(std::memory_order_acquire) > 0; ++i)
    i < kSpins ? relax() : std::this_thread::yield();
}

void Pool::barrier() {
  const int passed = passed_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.store(passed + 1, std::memory_order_release);
    return;
  }
  for (int i = 0; passed_.load(std::memory_order_acquire) == passed; ++i)
    i < kSpins ? relax() : std::this_thread::yield();
}

}  // namespace whisper_npu
