// Detection post-processing in two launches: score and threshold every box, then per image select, decode
// and suppress. One source for the GPU (nvcc) and, for tests, the CPU (a C++17 compiler).
//
// A loop FOR_EACH covers its range with the threads of a block; on the CPU one thread runs it whole. Between
// two SYNCs no iteration reads what another writes, so that both orders give the same result.

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define KERNEL __global__ void
#define DEVICE __device__ inline
#define SHARED __shared__
#define SYNC() __syncthreads()
#define FOR_EACH(i, count) for (int i = threadIdx.x; i < (count); i += blockDim.x)
#define IMAGE blockIdx.x
#else
#define KERNEL static void
#define DEVICE static inline
#define SHARED static thread_local
#define SYNC()
#define FOR_EACH(i, count) for (int i = 0; i < (count); ++i)
#define IMAGE image
#endif

constexpr int MAX_CANDIDATES = 2048;
constexpr int THREADS = 512;

struct Problem {
    const float *deltas;   // (batch, boxes, 4): dx, dy in units of the anchor, log dw, log dh
    const float *logits;   // (batch, boxes, classes)
    const float *anchors;  // (boxes, 4): centre x, centre y, width, height
    unsigned long long *keys;  // workspace (batch, capacity), capacity a power of two >= boxes
    int *survivors;            // workspace (batch), zero at the start
    float *out_boxes;          // (batch, candidates, 4): x1, y1, x2, y2
    float *out_scores;         // (batch, candidates)
    int *out_labels;           // (batch, candidates)
    int *out_counts;           // (batch)
    int batch, boxes, classes, candidates, capacity;
    float threshold, iou;
};

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Descending score, then ascending index: scores are positive, so that their bits sort like the numbers.
DEVICE unsigned long long make_key(float score, int box) {
    unsigned int bits;
    memcpy(&bits, &score, 4);
    return ((unsigned long long)bits << 32) | (0xffffffffu - (unsigned int)box);
}

DEVICE int key_box(unsigned long long key) { return (int)(0xffffffffu - (unsigned int)key); }

DEVICE float key_score(unsigned long long key) {
    unsigned int bits = (unsigned int)(key >> 32);
    float score;
    memcpy(&score, &bits, 4);
    return score;
}

// Best class of a box: the lowest index among equals.
DEVICE int best_class(const float *row, int classes) {
    int best = 0;
    for (int c = 1; c < classes; ++c)
        if (row[c] > row[best]) best = c;
    return best;
}

DEVICE void append(const Problem &p, int image, int box, float logit) {
    float score = sigmoid(logit);
    if (!(score > p.threshold)) return;
#ifdef __CUDACC__
    int place = atomicAdd(p.survivors + image, 1);
#else
    int place = p.survivors[image]++;
#endif
    p.keys[(long long)image * p.capacity + place] = make_key(score, box);
}

#ifdef __CUDACC__
// A warp per box: the lanes read its classes side by side.
KERNEL score_kernel(Problem p) {
    int item = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (item >= p.batch * p.boxes) return;
    const float *row = p.logits + (long long)item * p.classes;
    float best = -INFINITY;
    for (int c = lane; c < p.classes; c += 32) best = fmaxf(best, row[c]);
    for (int step = 16; step > 0; step /= 2) best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, step));
    if (lane == 0) append(p, item / p.boxes, item % p.boxes, best);
}
#else
KERNEL score_kernel(const Problem &p) {
    for (int item = 0; item < p.batch * p.boxes; ++item) {
        const float *row = p.logits + (long long)item * p.classes;
        append(p, item / p.boxes, item % p.boxes, row[best_class(row, p.classes)]);
    }
}
#endif

// Bitonic sort of keys[0..size), size a power of two, largest first.
DEVICE void sort_descending(unsigned long long *keys, int size) {
    for (int run = 2; run <= size; run *= 2)
        for (int step = run / 2; step > 0; step /= 2) {
            FOR_EACH(i, size) {
                int other = i ^ step;
                if (other > i && ((i & run) == 0) == (keys[i] < keys[other])) {
                    unsigned long long kept = keys[i];
                    keys[i] = keys[other];
                    keys[other] = kept;
                }
            }
            SYNC();
        }
}

DEVICE void decode(const float *delta, const float *anchor, float *box) {
    float x = anchor[0] + delta[0] * anchor[2], y = anchor[1] + delta[1] * anchor[3];
    float w = 0.5f * anchor[2] * expf(delta[2]), h = 0.5f * anchor[3] * expf(delta[3]);
    box[0] = x - w, box[1] = y - h, box[2] = x + w, box[3] = y + h;
}

DEVICE float overlap(const float *a, const float *b) {
    float w = fminf(a[2], b[2]) - fmaxf(a[0], b[0]), h = fminf(a[3], b[3]) - fmaxf(a[1], b[1]);
    if (w <= 0 || h <= 0) return 0;
    float both = w * h;
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both);
}

#ifdef __CUDACC__
KERNEL suppress_kernel(Problem p) {
#else
KERNEL suppress_kernel(const Problem &p, int image) {
#endif
    SHARED float boxes[MAX_CANDIDATES][4];
    SHARED int labels[MAX_CANDIDATES];
    SHARED unsigned char dropped[MAX_CANDIDATES];
    unsigned long long *keys = p.keys + (long long)IMAGE * p.capacity;
    int found = p.survivors[IMAGE], size = 1;
    while (size < found) size *= 2;
    FOR_EACH(i, size - found) keys[found + i] = 0;
    SYNC();
    sort_descending(keys, size);
    int count = found < p.candidates ? found : p.candidates;
    FOR_EACH(i, count) {
        long long box = (long long)IMAGE * p.boxes + key_box(keys[i]);
        decode(p.deltas + box * 4, p.anchors + (long long)key_box(keys[i]) * 4, boxes[i]);
        labels[i] = best_class(p.logits + box * p.classes, p.classes);
        dropped[i] = 0;
    }
    SYNC();
    int kept = 0;
    for (int i = 0; i < count; ++i) {
        if (dropped[i]) continue;  // the same for all threads: nobody writes entry i after the last SYNC
        long long slot = (long long)IMAGE * p.candidates + kept++;
        FOR_EACH(j, 4) p.out_boxes[slot * 4 + j] = boxes[i][j];
        FOR_EACH(j, 1) p.out_scores[slot] = key_score(keys[i]), p.out_labels[slot] = labels[i];
        FOR_EACH(j, count - i - 1) {
            int other = i + 1 + j;
            if (labels[other] == labels[i] && overlap(boxes[i], boxes[other]) > p.iou) dropped[other] = 1;
        }
        SYNC();
    }
    FOR_EACH(j, 1) p.out_counts[IMAGE] = kept;
}

extern "C" int max_candidates() { return MAX_CANDIDATES; }

// Returns 0, or the CUDA error of the launch.
extern "C" int detection_run(const Problem *problem, void *stream) {
    Problem p = *problem;
#ifdef __CUDACC__
    cudaStream_t on = (cudaStream_t)stream;
    cudaMemsetAsync(p.survivors, 0, sizeof(int) * p.batch, on);
    long long warps = (long long)p.batch * p.boxes;
    score_kernel<<<(unsigned)((warps * 32 + 255) / 256), 256, 0, on>>>(p);
    suppress_kernel<<<p.batch, THREADS, 0, on>>>(p);
    return (int)cudaGetLastError();
#else
    (void)stream;
    memset(p.survivors, 0, sizeof(int) * p.batch);
    score_kernel(p);
    for (int image = 0; image < p.batch; ++image) suppress_kernel(p, image);
    return 0;
#endif
}
