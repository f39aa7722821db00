/* Decodes one token of two sequences from C, with the driver API and the files of this repository.
 *
 *   cc -std=c11 -I gdn-host/ptx examples/c/decode.c -o decode -ldl -lm
 *   ./decode gdn-host/ptx
 *
 * In the folder that `cargo xtask dist` lays out: cc -std=c11 -I . examples/decode.c -o decode -ldl -lm && ./decode .
 *
 * manifest.json says which file, entry and geometry there are. Machine code for this GPU is taken where there is some,
 * else PTX, which the driver compiles. libcuda is opened at run time, so neither a GPU nor a toolkit is needed to build.
 *
 * With beta 1, decay 1 and a unit key, decode replaces one column of the state by v: easy to check by eye.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gdn_kernels.h"

#define MODULE "decode_f32_f32_k128"
enum { N = 2, H = 1, HV = 2, K = 128, V = 128, SLOTS = 3, WARPS = 4 };

/* The driver: what this program calls of it. */
typedef uint64_t Address;
static struct {
  int (*init)(unsigned);
  int (*device)(int *, int);
  int (*attribute)(int *, int, int);
  int (*retain)(void **, int);
  int (*set_current)(void *);
  int (*load)(void **, const void *);
  int (*function)(void **, void *, const char *);
  int (*alloc)(Address *, size_t);
  int (*to_device)(Address, const void *, size_t);
  int (*to_host)(void *, Address, size_t);
  int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, void **);
  int (*error)(int, const char **);
} cuda;

static void fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(int result, const char *what) {
  const char *text = "unknown error";
  if (result == 0) return;
  if (cuda.error) cuda.error(result, &text);
  fail(what, text);
}

static void open_driver(void) {
  void *library = dlopen("libcuda.so.1", RTLD_NOW);
  if (!library) {
    fprintf(stderr, "this example needs a GPU and its driver: libcuda.so.1 cannot be opened\n");
    exit(2);
  }
  const char *names[] = {"cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
                         "cuModuleLoadData", "cuModuleGetFunction", "cuMemAlloc_v2", "cuMemcpyHtoD_v2",
                         "cuMemcpyDtoH_v2", "cuLaunchKernel", "cuGetErrorString"};
  void **into = (void **)&cuda;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    into[i] = dlsym(library, names[i]);
    if (!into[i]) fail(names[i], "libcuda does not have it");
  }
  if (cuda.init(0) != 0) {
    fprintf(stderr, "this example needs a GPU: the driver finds none that it can use\n");
    exit(2);
  }
}

static char *read_file(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) fail(path, "cannot be read");
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  char *text = calloc((size_t)size + 1, 1); /* PTX wants a terminating NUL */
  if (!text || fread(text, 1, (size_t)size, file) != (size_t)size) fail(path, "cannot be read");
  fclose(file);
  return text;
}

/* A very small reader of the manifest, which a JSON library would replace. Values are found by the order of the text: a
 * module's fields, then its binaries, then its entries. */
static const char *find(const char *text, const char *end, const char *key) {
  const char *found = text ? strstr(text, key) : NULL;
  return found && (!end || found < end) ? found + strlen(key) : NULL;
}

static int number(const char *text, const char *end, const char *key) {
  const char *found = find(text, end, key);
  if (!found) fail("manifest.json", key);
  return atoi(found);
}

static void string(char *into, size_t size, const char *text, const char *end, const char *key) {
  const char *found = find(text, end, key);
  if (!found) fail("manifest.json", key);
  size_t length = strcspn(found, "\"");
  snprintf(into, size, "%.*s", (int)length, found);
}

typedef struct {
  char file[256], binary[256], entry[256];
  int rows, max_threads, params_size;
} Kernel;

/* The module of the highest target that the device runs, machine code for it, and its entry with the fewest rows. */
static Kernel choose(const char *manifest, int major, int minor) {
  Kernel kernel = {0};
  int best = 0;
  for (const char *at = manifest; (at = find(at, NULL, "\"file\": \"" MODULE ".sm_"));) {
    const char *name = at - strlen(MODULE ".sm_");
    int target = atoi(at), compute = 10 * major + minor;
    size_t length = strcspn(name, "\"");
    if (length < 4 || strncmp(name + length - 4, ".ptx", 4) != 0 || target > compute || target <= best) continue;
    const char *binaries = find(at, NULL, "\"binaries\": ["), *entries = find(at, NULL, "\"entries\": [");
    if (!binaries || !entries) fail("manifest.json", "the module has no binaries or entries");
    best = target;
    kernel = (Kernel){0};
    snprintf(kernel.file, sizeof kernel.file, "%.*s", (int)length, name);
    for (const char *b = binaries; (b = find(b, entries, "\"file\": \""));) {
      const char *gpu = strstr(b, ".sm_");
      int of = gpu ? atoi(gpu + 4) : 0;
      if (of / 10 == major && of % 10 <= minor) string(kernel.binary, sizeof kernel.binary, b - 9, entries, "\"file\": \"");
    }
    string(kernel.entry, sizeof kernel.entry, entries, NULL, "\"name\": \"");
    kernel.rows = number(entries, NULL, "\"rows\": ");
    kernel.max_threads = number(entries, NULL, "\"max_threads\": ");
    kernel.params_size = number(entries, NULL, "\"params_size\": ");
  }
  if (!best) fail("manifest.json", "no module " MODULE " for this device");
  return kernel;
}

static Address upload(const void *bytes, size_t size) {
  Address address = 0;
  check(cuda.alloc(&address, size), "cuMemAlloc");
  check(cuda.to_device(address, bytes, size), "cuMemcpyHtoD");
  return address;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s FOLDER, the one with manifest.json in it\n", argv[0]);
    return 2;
  }
  char *manifest = read_file(argv[1], "manifest.json");
  open_driver();
  int device, major, minor;
  void *context, *module, *function;
  check(cuda.device(&device, 0), "cuDeviceGet");
  check(cuda.attribute(&major, 75, device), "cuDeviceGetAttribute"); /* COMPUTE_CAPABILITY_MAJOR */
  check(cuda.attribute(&minor, 76, device), "cuDeviceGetAttribute");
  check(cuda.retain(&context, device), "cuDevicePrimaryCtxRetain");
  check(cuda.set_current(context), "cuCtxSetCurrent");

  Kernel kernel = choose(manifest, major, minor);
  if (kernel.params_size != sizeof(GdnDecodeParams)) fail("gdn_kernels.h", "it is not the one beside this manifest");
  const char *loaded = kernel.binary;
  /* A driver older than the machine code refuses it, and compiles the PTX instead. */
  if (!*kernel.binary || cuda.load(&module, read_file(argv[1], kernel.binary)) != 0) {
    loaded = kernel.file;
    check(cuda.load(&module, read_file(argv[1], kernel.file)), "cuModuleLoadData");
  }
  check(cuda.function(&function, module, kernel.entry), "cuModuleGetFunction");

  static float q[N * H * K], k[N * H * K], v[N * HV * V], ones[N * HV], zeros[N * HV];
  static float state[SLOTS * HV * V * K], out[N * HV * V];
  const int32_t slot[N] = {2, -1}; /* the second sequence is padding */
  for (int i = 0; i < N * HV; i++) ones[i] = 1.0f;
  for (int n = 0; n < N; n++) q[n * K + 5] = k[n * K + 5] = 1.0f; /* unit vectors along element 5 */
  for (int i = 0; i < N * HV * V; i++) v[i] = (float)i;
  for (int i = 0; i < SLOTS * HV * V * K; i++) state[i] = 0.25f;
  for (int i = 0; i < N * HV * V; i++) out[i] = NAN;

  const unsigned bv = (unsigned)kernel.rows * (256 / K) * WARPS; /* rows of V a block works on */
  if (V % bv || 32 * WARPS > kernel.max_threads) fail(kernel.entry, "this geometry does not fit it");
  Address state_at = upload(state, sizeof state), out_at = upload(out, sizeof out);
  GdnDecodeParams p = {
      .inputs = {.q = upload(q, sizeof q), .k = upload(k, sizeof k), .v = upload(v, sizeof v),
                 .q_stride = H * K, .k_stride = H * K, .v_stride = HV * V},
      .gate = {.a = upload(zeros, sizeof zeros), .b = upload(ones, sizeof ones), .a_stride = HV,
               .b_stride = HV}, /* all f32: GdnDType 0; decay and beta are given */
      .pool = {.state = state_at, .slot = {.address = upload(slot, sizeof slot), .stride = sizeof *slot, .entry = GDN_ENTRY_I32},
               .pitch = HV * V * K, .slots = SLOTS, .null_slot = -1},
      .out = out_at, .out_stride = HV * V, .n = N,
      .layer = {.h = H, .hv = HV, .v = V, .head_reciprocal = gdn_head_reciprocal(HV / H),
                .flags = GDN_FLAG_DECAY_GIVEN | GDN_FLAG_BETA_GIVEN, .scale = 1.0f, .eps = 1.0f}};
  p.layer.tiles_reciprocal = gdn_head_reciprocal(V / bv);
  void *parameters[] = {&p};
  check(cuda.launch(function, HV * V / bv, N, 1, 32 * WARPS, 1, 1, 0, NULL, parameters, NULL), "cuLaunchKernel");
  check(cuda.to_host(out, out_at, sizeof out), "decode");
  check(cuda.to_host(state, state_at, sizeof state), "cuMemcpyDtoH");

  int wrong = 0;
  for (int i = 0; i < HV * V; i++) {
    wrong += out[i] != v[i];          /* h k = v now, and q = k */
    wrong += out[HV * V + i] != 0.0f; /* padded rows are zero */
    for (int j = 0; j < K; j++)
      wrong += state[(2 * HV * V + i) * K + j] != (j == 5 ? v[i] : 0.25f);
  }
  printf("%s from %s: %s\n", kernel.entry, loaded, wrong ? "WRONG" : "right");
  return wrong != 0;
}
