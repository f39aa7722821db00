/* Decodes one token of two sequences from C, by libgdn.
 *
 *   cc -std=c99 decode.c -o decode $(pkg-config --cflags --libs gdn) -ldl && ./decode
 *
 * pkg-config finds gdn.pc in the folder that `cargo xtask dist` lays out, with
 * PKG_CONFIG_PATH=dist/gdn-VERSION/lib/pkgconfig.
 *
 * With beta 1, decay 1 and a unit key, decode replaces one column of the state by v: easy to check by eye.
 */
#include <math.h>

#include "driver.h"

enum { N = 2, H = 1, HV = 2, K = 128, V = 128, SLOTS = 3 };

static float q[N * H * K], k[N * H * K], v[N * HV * V], ones[N * HV], zeros[N * HV];
static float state[SLOTS * HV * V * K], out[N * HV * V];

/* `count` rows of `width` floats. */
static gdn_rows rows(const float *from, uint64_t count, uint64_t width) {
  return gdn_rows_packed(upload(from, count * width * sizeof *from), GDN_F32, count, width);
}

int main(void) {
  const gdn_shape shape = {H, HV, K, V};
  const int32_t slots[N] = {2, -1}; /* the second sequence is padding */
  const gdn_key key = {GDN_OP_DECODE, GDN_FAMILY_GDN, GDN_LAYOUT_VK, GDN_F32, GDN_F32, K};
  gdn_context_options options;
  gdn_context *context;
  gdn_prepared *prepared;
  gdn_decode_call call;
  char text[256];
  int i, j, n, wrong = 0;

  if (gdn_abi_version() != GDN_ABI_VERSION) fail("libgdn", "it is not of the version of gdn.h");
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.flags = GDN_PRIMARY_CONTEXT; /* of device 0, which the CUDA runtime uses, too */
  check(gdn_context_create(NULL, &key, 1, &options, &context), "gdn_context_create");
  open_driver();

  for (i = 0; i < N * HV; i++) ones[i] = 1.0f;
  for (n = 0; n < N; n++) q[n * K + 5] = k[n * K + 5] = 1.0f; /* unit vectors along element 5 */
  for (i = 0; i < N * HV * V; i++) v[i] = (float)i;
  for (i = 0; i < SLOTS * HV * V * K; i++) state[i] = 0.25f;
  for (i = 0; i < N * HV * V; i++) out[i] = NAN;

  memset(&call, 0, sizeof call); /* zeros are what published models have */
  call.size = sizeof call;
  call.batch = N;
  call.inputs.shape = shape;
  call.inputs.flags = GDN_NO_L2NORM;
  call.inputs.scale = 1.0f;
  call.inputs.q = rows(q, N, H * K);
  call.inputs.k = rows(k, N, H * K);
  call.inputs.v = rows(v, N, HV * V);
  call.inputs.decay.kind = GDN_DECAY_GIVEN; /* a log decay of 0 */
  call.inputs.decay.given = rows(zeros, N, HV);
  call.inputs.beta.kind = GDN_BETA_GIVEN;
  call.inputs.beta.given = rows(ones, N, HV);
  call.state = gdn_pool_packed(upload(state, sizeof state), GDN_F32, SLOTS, shape);
  call.slots = gdn_table_packed(upload(slots, sizeof slots), GDN_I32, N, 1);
  call.out = rows(out, N, HV * V);

  /* Once for many launches; `gdn_decode` does both for one. */
  check(gdn_decode_prepare(context, &call, NULL, &prepared), "gdn_decode_prepare");
  check(gdn_prepared_launch(prepared, NULL), "gdn_prepared_launch");
  done(cuda.to_host(out, call.out.address, sizeof out), "decode");
  done(cuda.to_host(state, call.state.address, sizeof state), "cuMemcpyDtoH");

  for (i = 0; i < HV * V; i++) {
    wrong += out[i] != v[i];          /* the state times k is v now, and q = k */
    wrong += out[HV * V + i] != 0.0f; /* padded rows are zero */
    for (j = 0; j < K; j++) wrong += state[(2 * HV * V + i) * K + j] != (j == 5 ? v[i] : 0.25f);
  }
  gdn_prepared_plan(prepared, text, sizeof text);
  printf("%s: %s\n", text, wrong ? "WRONG" : "right");
  gdn_prepared_destroy(prepared);
  gdn_context_destroy(context);
  return wrong != 0;
}
