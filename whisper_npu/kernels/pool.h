// Threads that work on one task together, and wait for each other often.
//
// A wait first spins (a decoder step has a hundred barriers of microseconds), then yields, so that
// several programs on the same cores slow each other down and never stop each other.
#pragma once
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace whisper_npu {

class Pool {
 public:
  // pinned: the cores that the work stays on; empty: any
  explicit Pool(int threads, std::vector<int> pinned = {});
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }
  // task(context, id) on every thread, the caller's being 0. One caller at a time: others wait.
  void run(void (*task)(void* context, int id), void* context);
  // From inside a task: returns when every thread has come here.
  void barrier();
  // From inside a task: 0, 1, 2 ... across all threads; starts again after `rewind`.
  int next() { return next_.fetch_add(1, std::memory_order_relaxed); }
  void rewind() { next_.store(0, std::memory_order_relaxed); }

 private:
  void work(int id);

  const int threads_;
  const std::vector<int> pinned_;
  std::mutex caller_, sleep_;
  std::condition_variable wake_;
  std::atomic<int> started_{0}, sleeping_{0}, running_{0};
  std::atomic<int> arrived_{0}, passed_{0}, next_{0};
  std::atomic<bool> stop_{false};
  void (*task_)(void*, int) = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> workers_;
};

// pool.run with a lambda of (int id).
template <class Task>
void run(Pool& pool, Task&& task) {
  using Plain = std::remove_reference_t<Task>;
  pool.run([](void* context, int id) { (*static_cast<Plain*>(context))(id); }, &task);
}

}  // namespace whisper_npu
