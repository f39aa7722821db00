/* What the examples use of the CUDA driver besides libgdn: memory, a stream and a graph. A program that has the CUDA
 * runtime has these already. libcuda is opened at run time, so neither a GPU nor a toolkit is needed to build. */
#ifndef GDN_EXAMPLE_DRIVER_H
#define GDN_EXAMPLE_DRIVER_H

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gdn.h"

typedef uint64_t Address;

static struct {
  int (*alloc)(Address *, size_t);
  int (*to_device)(Address, const void *, size_t);
  int (*to_host)(void *, Address, size_t);
  int (*stream)(void **, unsigned);
  int (*synchronize)(void *);
  int (*begin_capture)(void *, int);
  int (*end_capture)(void *, void **);
  int (*instantiate)(void **, void *, unsigned long long);
  int (*launch_graph)(void *, void *);
  int (*error)(int, const char **);
} cuda;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

/* Stops unless libgdn did what it was asked. */
static void check(gdn_status status, const char *what) {
  if (status == GDN_OK) return;
  if (status == GDN_ERROR_NO_DRIVER) {
    fprintf(stderr, "this example needs a GPU and its driver: %s\n", gdn_last_error());
    exit(2);
  }
  fprintf(stderr, "%s: %s: %s\n", what, gdn_status_name(status), gdn_last_error());
  exit(1);
}

/* Stops unless the driver did. */
static void done(int result, const char *what) {
  const char *text = "unknown error";
  if (result == 0) return;
  if (cuda.error) cuda.error(result, &text);
  fail(what, text);
}

/* Opens the library that libgdn opened when it made its context. */
static void open_driver(void) {
  const char *names[] = {"cuMemAlloc_v2", "cuMemcpyHtoD_v2", "cuMemcpyDtoH_v2", "cuStreamCreate",
                         "cuStreamSynchronize", "cuStreamBeginCapture_v2", "cuStreamEndCapture",
                         "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuGetErrorString"};
  const char *name = getenv("GDN_LIBCUDA");
  void *library = dlopen(name ? name : "libcuda.so.1", RTLD_NOW);
  size_t i;
  if (!library) fail("libcuda", dlerror());
  for (i = 0; i < sizeof names / sizeof *names; i++) {
    void *symbol = dlsym(library, names[i]);
    if (!symbol) fail(names[i], "libcuda does not have it");
    memcpy((char *)&cuda + i * sizeof symbol, &symbol, sizeof symbol);
  }
}

/* A copy of host memory on the device. */
static Address upload(const void *bytes, size_t size) {
  Address address = 0;
  done(cuda.alloc(&address, size), "cuMemAlloc");
  done(cuda.to_device(address, bytes, size), "cuMemcpyHtoD");
  return address;
}

#endif
