#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if __has_include(<mm_malloc.h>)
#include <mm_malloc.h>  // that of clang declares posix_memalign without noexcept, which it must do before us
#endif

#include "unroll/testing/allocations.hpp"

// Include this header in exactly ONE translation unit of a test program: it makes the global allocation
// functions count. Two inclusions in one program are a link error ("multiple definition").
//
// Sanitizers call a hook at every allocation. With glibc alone the malloc family is replaced and forwards to
// glibc's own. Both see operator new, Eigen and C. Other C libraries do not name their own
// malloc; there only operator new and delete are replaced, so what Eigen allocates is not seen.

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNROLL_COUNT_BY_HOOK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define UNROLL_COUNT_BY_HOOK 1
#endif
#endif
#if defined(UNROLL_COUNT_BY_HOOK) || defined(__GLIBC__)
#define UNROLL_COUNT_MALLOC 1
#else
#define UNROLL_COUNT_MALLOC 0
#endif

namespace unroll::testing {

/// Whether malloc is counted too, not only operator new.
inline constexpr bool malloc_is_counted = UNROLL_COUNT_MALLOC;

namespace detail {
inline const bool linked = counting_is_linked = true;
}

}  // namespace unroll::testing

#if defined(UNROLL_COUNT_BY_HOOK)

extern "C" void __sanitizer_malloc_hook(const volatile void*, std::size_t) {
  ++unroll::testing::total_allocations;
}

#elif UNROLL_COUNT_MALLOC

extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) noexcept {
  ++unroll::testing::total_allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t n, std::size_t size) noexcept {
  ++unroll::testing::total_allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* old, std::size_t size) noexcept {
  ++unroll::testing::total_allocations;
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  ++unroll::testing::total_allocations;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** out, std::size_t alignment, std::size_t size) noexcept {
  if (alignment % sizeof(void*) != 0 || alignment == 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  ++unroll::testing::total_allocations;
  void* p = __libc_memalign(alignment, size);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}
}

#else

namespace unroll::testing::detail {

inline void* counted_new(std::size_t size, std::size_t alignment) {
  ++total_allocations;
  void* p = nullptr;
  if (size == 0) size = 1;
  if (alignment <= alignof(std::max_align_t))
    p = std::malloc(size);
  else
    p = std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
  if (!p) throw std::bad_alloc();
  return p;
}

}  // namespace unroll::testing::detail

// The forms for arrays and the ones that do not throw call these.
void* operator new(std::size_t size) { return unroll::testing::detail::counted_new(size, 1); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return unroll::testing::detail::counted_new(size, std::size_t(alignment));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#endif

#undef UNROLL_COUNT_MALLOC
#undef UNROLL_COUNT_BY_HOOK
