/* --- start --- */
/* A layer: a convolution, or a linear layer, which is a convolution of one pixel, and the BatchNorm after it. */
typedef struct Layer {
    int inputs, outputs; /* channels */
    int kernel, stride, padding; /* in pixels */
    int bits; /* per weight, where the inputs are real numbers */
    const void *weights;
    const float *gain, *shift; /* of each output: weight scale and BatchNorm, folded into one product and one sum */
    void (*row)(const struct Layer *layer, const void *input, int height, int width, int y);
} Layer;

/* All feature maps are stored pixel by pixel, with the channels of a pixel next to each other. */
static float pixels[HEIGHT * WIDTH * COLOURS]; /* the normalized image */
static float features[MOST_FEATURES + 31];     /* the map that skip connections carry; `activate_row` reads beyond it */
static Value input[MOST_INPUTS];               /* the activations that the next layer reads */
static float sums[MOST_SUMS];                  /* one row of a layer's output */

/* The number of pixels from one side of a layer's output to the other. */
static int output_side(const Layer *layer, int side)
{
    return (side + 2 * layer->padding - layer->kernel) / layer->stride + 1;
}

/* The place of a pixel beyond the border: the border is a mirror. */
static int reflect(int place, int side)
{
    return place < 0 ? -place : place < side ? place : 2 * side - 2 - place;
}

/* Subtract the mean colour from one row of an image, and add a pixel at both ends. */
static void centre(const uint8_t *image, int y, float to[COLOURS][WIDTH + 2])
{
    for (int c = 0; c < COLOURS; c++) {
        const uint8_t *from = image + (c * HEIGHT + reflect(y, HEIGHT)) * WIDTH;
        for (int x = 0; x < WIDTH; x++)
            to[c][x + 1] = (float)from[x] - MEAN[c];
        to[c][0] = to[c][2];
        to[c][WIDTH + 1] = to[c][WIDTH - 1];
    }
}

/* Standardize and whiten an image: subtract the mean colour, then apply a 3 x 3 filter.

   FILTER is the whitening filter divided by the standard deviations; its last index is the output. */
static void normalize(const uint8_t *image)
{
    static float centred[COLOURS][WIDTH + 2], row[COLOURS][WIDTH];

    for (int y = 0; y < HEIGHT; y++) {
        for (int i = 0; i < COLOURS * WIDTH; i++)
            row[i / WIDTH][i % WIDTH] = 0;
        for (int i = 0; i < 9; i++) {
            if (i % 3 == 0)
                centre(image, y + i / 3 - 1, centred);
            for (int c = 0; c < COLOURS * COLOURS; c++) {
                float weight = FILTER[i * COLOURS * COLOURS + c];
                const float *from = centred[c / COLOURS] + i % 3;
                for (int x = 0; x < WIDTH; x++)
                    row[c % COLOURS][x] += from[x] * weight;
            }
        }
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < COLOURS; c++)
                pixels[(y * WIDTH + x) * COLOURS + c] = row[c][x];
    }
}

/* Unpack the weights from one input value to all outputs: -1 and 1, or -1, 0 and 1, or whole numbers of a byte.
   Eight outputs at a time share one or two bytes, so a compiler can unpack them with a few instructions. */
static void unpack(const Layer *layer, int number, float *levels)
{
    int outputs = layer->outputs;
    const uint8_t *bytes = (const uint8_t *)layer->weights + number * ((outputs + 7) / 8 * layer->bits);

    for (int o = 0; o < outputs; o += 8, bytes += layer->bits, levels += 8)
        if (layer->bits == 1)
            for (int i = 0; i < 8; i++)
                levels[i] = (float)((bytes[0] >> i & 1) * 2 - 1);
        else if (layer->bits == 2) /* the first byte has a bit for each 1, the second one for each -1 */
            for (int i = 0; i < 8; i++)
                levels[i] = (float)((bytes[0] >> i & 1) - (bytes[1] >> i & 1));
        else
            for (int i = 0; i < 8; i++)
                levels[i] = (float)(int8_t)bytes[i];
}

/* Compute one row of sums of a layer whose inputs are real numbers. Weights are unpacked once per row. */
static void row_of_floats(const Layer *layer, const void *values, int height, int width, int y)
{
    static float levels[(MOST_OUTPUTS + 7) / 8 * 8];
    int outputs = layer->outputs, columns = output_side(layer, width);

    for (int i = 0; i < columns * outputs; i++)
        sums[i] = 0;
    for (int i = 0; i < layer->kernel * layer->kernel; i++) {
        int down = i / layer->kernel - layer->padding, right = i % layer->kernel - layer->padding;
        int from_y = y * layer->stride + down;
        if (from_y < 0 || from_y >= height)
            continue; /* zero padding adds nothing */
        for (int c = 0; c < layer->inputs; c++) {
            unpack(layer, i * layer->inputs + c, levels);
            for (int x = 0; x < columns; x++) {
                int from_x = x * layer->stride + right;
                if (from_x < 0 || from_x >= width)
                    continue;
                float value = ((const float *)values)[(from_y * width + from_x) * layer->inputs + c];
                float *to = sums + x * outputs;
                if (value != 0) /* after a ReLU, many values are 0 */
                    for (int o = 0; o < outputs; o++)
                        to[o] += value * levels[o];
            }
        }
    }
}

/* Keep the largest sum of each window of pool x pool pixels; the first one of a window replaces what was there. */
static void keep_largest(int y, int columns, int outputs, int pool)
{
    int wide = columns / pool;

    for (int x = 0; x < wide * pool; x++) {
        const float *from = sums + x * outputs;
        float *kept = features + (y / pool * wide + x / pool) * outputs;
        int is_first = y % pool == 0 && x % pool == 0;
        for (int o = 0; o < outputs; o++)
            kept[o] = is_first || from[o] > kept[o] ? from[o] : kept[o];
    }
}

/* A layer, max pooling and the BatchNorm: the features become those of the layer. */
static void replace(const Layer *layer, const void *values, int height, int width, int pool)
{
    int rows = output_side(layer, height) / pool, columns = output_side(layer, width);
    int outputs = layer->outputs;

    for (int y = 0; y < rows * pool; y++) {
        layer->row(layer, values, height, width, y);
        keep_largest(y, columns, outputs, pool);
    }
    for (int i = 0; i < rows * (columns / pool); i++)
        for (int o = 0; o < outputs; o++)
            features[i * outputs + o] = features[i * outputs + o] * layer->gain[o] + layer->shift[o];
}

/* --- skip --- */
/* A layer with a skip connection: its output is added to the features. */
static void add(const Layer *layer, const void *values, int height, int width)
{
    int outputs = layer->outputs;

    for (int y = 0; y < height; y++) {
        layer->row(layer, values, height, width, y);
        for (int x = 0; x < width; x++)
            for (int o = 0; o < outputs; o++)
                features[(y * width + x) * outputs + o] += sums[x * outputs + o] * layer->gain[o] + layer->shift[o];
    }
}

/* Replace the features by the largest of each channel. */
static void largest(int places, int channels)
{
    for (int i = 1; i < places; i++)
        for (int c = 0; c < channels; c++)
            if (features[i * channels + c] > features[c])
                features[c] = features[i * channels + c];
}

/* --- window --- */
/* The part of a layer's window that lies inside a map, along one side. */
typedef struct {
    int from, count, skipped; /* the first pixel, the number of pixels, and how many stand before them in the window */
} Span;

static inline Span inside(const Layer *layer, int place, int side)
{
    int first = place * layer->stride - layer->padding, end = first + layer->kernel;
    Span span = {first < 0 ? 0 : first, 0, first < 0 ? -first : 0};

    span.count = (end < side ? end : side) - span.from;
    return span;
}

/* --- signs --- */
/* Count the bits that are 1 in three words. A compiler can do this for many words at a time. */
static inline uint32_t popcount(uint32_t a, uint32_t b, uint32_t c)
{
#if defined(__AVX512VPOPCNTDQ__) || defined(__wasm_simd128__) || defined(__ARM_NEON)
    return (uint32_t)(__builtin_popcount(a) + __builtin_popcount(b) + __builtin_popcount(c));
#else
    uint32_t ones = a ^ b ^ c, twos = (a & b) | (c & (a ^ b)); /* the sum of the three bits at each place */
    ones -= ones >> 1 & 0x55555555;                            /* count in pairs of bits */
    twos -= twos >> 1 & 0x55555555;
    ones = (ones & 0x33333333) + (ones >> 2 & 0x33333333); /* in groups of 4 */
    twos = (twos & 0x33333333) + (twos >> 2 & 0x33333333);
    ones += 2 * twos;
    ones = (ones & 0x0f0f0f0f) + (ones >> 4 & 0x0f0f0f0f); /* in bytes */
    ones += ones >> 8;
    return (ones + (ones >> 16)) & 0xff;
#endif
}

/* Compute one row of sums of a layer whose weights and inputs are signs, 32 of them per word.

   A product is -1 where two bits differ and 1 where they agree, so the sum of n products is n - 2 x (bits that differ).
   The channels of a pixel fill whole words. The bits that are left over are 0 in both, so they never differ. */
static void row_of_signs(const Layer *layer, const void *values, int height, int width, int y)
{
    static uint32_t differ[MOST_OUTPUTS];
    int outputs = layer->outputs, columns = output_side(layer, width), words = (layer->inputs + 31) / 32;
    Span down = inside(layer, y, height);

    for (int x = 0; x < columns; x++) {
        Span across = inside(layer, x, width); /* zero padding is no sign: it adds nothing, and does not count */
        int n = down.count * across.count * layer->inputs;
        for (int o = 0; o < outputs; o++)
            differ[o] = 0;
        for (int i = 0; i < down.count; i++) {
            const uint32_t *signs = (const uint32_t *)values + ((down.from + i) * width + across.from) * words;
            const uint32_t *weights = layer->weights;
            weights += ((down.skipped + i) * layer->kernel + across.skipped) * words * outputs;
            int left = across.count * words;
            for (; left >= 3; left -= 3, signs += 3, weights += 3 * outputs) {
                uint32_t a = signs[0], b = signs[1], c = signs[2];
                const uint32_t *second = weights + outputs, *third = second + outputs;
                for (int o = 0; o < outputs; o++)
                    differ[o] += popcount(a ^ weights[o], b ^ second[o], c ^ third[o]);
            }
            for (; left > 0; left--, signs++, weights += outputs)
                for (int o = 0; o < outputs; o++)
                    differ[o] += popcount(*signs ^ weights[o], 0, 0);
        }
        for (int o = 0; o < outputs; o++)
            sums[x * outputs + o] = (float)(n - 2 * (int)differ[o]);
    }
}

/* The activation: a sign. The bit is 1 where a number is at least 0. Words are filled from the numbers that follow;
   where the channels of a pixel end, the bits that are left over become 0. */
static void activate_row(const float *from, int places, int channels, uint32_t *to)
{
    for (int i = 0; i < places; i++, from += channels)
        for (int first = 0; first < channels; first += 32) {
            uint32_t word = 0;
            int left = channels - first;
            for (int c = 0; c < 32; c++)
                word |= from[first + c] >= 0 ? 1u << c : 0;
            *to++ = left < 32 ? word & ((1u << left) - 1) : word;
        }
}

/* --- relu --- */
/* The activation: a ReLU. */
static void activate_row(const float *from, int places, int channels, float *to)
{
    for (int i = 0; i < places * channels; i++)
        to[i] = from[i] > 0 ? from[i] : 0;
}

/* --- activate --- */
/* Apply the activation to the features; the result is the input of the next layer. */
static void activate(int places, int channels)
{
    activate_row(features, places, channels, input);
}

/* --- stem --- */
#if defined(__GNUC__) && !defined(__clang__)
#define AS_VECTOR _Pragma("GCC unroll 1") /* otherwise, gcc unrolls a short loop before it could use vectors */
#else
#define AS_VECTOR
#endif

/* The stem: fixed filters, whose responses are negated and repeated, the BatchNorm and the activation. */
static void stem(const Layer *layer, int channels)
{
    static float levels[MOST_LEVELS], pixel[MOST_STEM + 31];
    int columns = output_side(layer, WIDTH), taps = layer->kernel * layer->kernel * COLOURS;

    for (int i = 0; i < taps; i++)
        unpack(layer, i, levels + i * FILTERS);
    for (int y = 0; y < output_side(layer, HEIGHT); y++) {
        Span down = inside(layer, y, HEIGHT);
        for (int x = 0; x < columns; x++) {
            Span across = inside(layer, x, WIDTH);
            float responses[FILTERS] = {0};
            for (int i = 0; i < down.count; i++) {
                const float *from = pixels + ((down.from + i) * WIDTH + across.from) * COLOURS;
                const float *weights = levels;
                weights += ((down.skipped + i) * layer->kernel + across.skipped) * COLOURS * FILTERS;
                for (int j = 0; j < across.count * COLOURS; j++)
                    AS_VECTOR for (int f = 0; f < FILTERS; f++)
                        responses[f] += from[j] * weights[j * FILTERS + f];
            }
            for (int c = 0; c < channels; c += FILTERS) {
                int sign = c / FILTERS % 2 ? -1 : 1;
                for (int f = 0; f < FILTERS; f++)
                    pixel[c + f] = (float)sign * responses[f] * layer->gain[c + f] + layer->shift[c + f];
            }
            activate_row(pixel, 1, channels, input + (y * columns + x) * VALUES(channels));
        }
    }
}

/* --- main --- */
static int best_of(const float *scores)
{
    int best = 0;

    for (int i = 1; i < CLASSES; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

int prefix_class(const uint8_t *image)
{
    float scores[CLASSES];

    prefix_scores(image, scores);
    return best_of(scores);
}

#ifdef PREFIX_MAIN
/* A program: it reads raw images from its input and writes one line per image: the class and the scores. */
#include <stdio.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

int main(void)
{
    static uint8_t image[COLOURS * HEIGHT * WIDTH];
    float scores[CLASSES];
    size_t count;

#ifdef _WIN32
    _setmode(_fileno(stdin), _O_BINARY); /* otherwise, some bytes would count as the end of a line or a file */
#endif
    while ((count = fread(image, 1, sizeof image, stdin)) == sizeof image) {
        prefix_scores(image, scores);
        printf("%d", best_of(scores));
        for (int i = 0; i < CLASSES; i++)
            printf(" %.9g", (double)scores[i]);
        printf("\n");
    }
    if (count != 0)
        fprintf(stderr, "the last image is incomplete: %d of %d bytes\n", (int)count, (int)sizeof image);
    return count != 0;
}
#endif
