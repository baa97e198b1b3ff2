// rope on the device: cosine and sine of far positions as its header promises, rows of every type against the formula, in place and with
// elements in no pair; hadamard against the matrix, and against itself. The reference must say the same.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <random>

#include "kernels.hpp"
#include "page_kernels_device.hpp"
#include "params/grids.h"
#include "params/strided.h"

using namespace kvant;
using namespace kvant::test;

namespace {

float normal(std::mt19937& engine) { return std::normal_distribution<float>()(engine); }

// The reference over the same bytes; its result is that of the last binding that is written.
template <typename Params>
void run_reference(void (*run)(reference::KernelCall&), const SpecValues& spec, const Params& push, std::vector<Bytes*> bindings,
                   const params::Grid& grid) {
  reference::FaultLog log;
  reference::KernelCall call;
  call.spec = spec;
  call.push = reinterpret_cast<const std::byte*>(&push);
  for (std::size_t i = 0; i < bindings.size(); ++i) call.bindings[i] = reference::View(*bindings[i], "binding", log);
  call.groups = grid;
  call.log = &log;
  run(call);
  REQUIRE_MESSAGE(log.empty(), log.message());
}

// Rows [batch][token][row][element], even gaps between all of them, and what turns them.
struct Rope {
  FormatId type = FormatId::f32;
  std::uint32_t dim = 0, gap = 0;
  params::RopeParams push{};
  Bytes source, destination;
  std::vector<std::uint32_t> positions;
  std::vector<double> turns;
  std::vector<std::uint32_t> streams;
  std::vector<float> factors;
  bool in_place = false;
  std::uint32_t unit = 1, limit = 65535;

  std::size_t size() const { return format_info(type).canonical_bytes; }
  std::size_t place(std::uint32_t element, std::uint32_t row, std::uint32_t token, std::uint32_t batch) const {
    return push.src_offset + std::size_t{element} * size() + row * push.src_nb1 + token * push.src_nb2 + batch * push.src_nb3;
  }
};

Rope make_rope(FormatId type, std::uint32_t dim, std::uint32_t rows, std::uint32_t tokens, std::uint32_t batches, std::uint32_t gap) {
  Rope r;
  r.type = type;
  r.dim = dim;
  params::RopeParams& p = r.push;
  p.rows = rows;
  p.tokens = tokens;
  p.batches = batches;
  p.src_offset = p.dst_offset = gap;
  p.src_nb1 = p.dst_nb1 = static_cast<std::uint32_t>(r.size()) * dim + gap;
  p.src_nb2 = p.dst_nb2 = p.src_nb1 * rows + gap;
  p.src_nb3 = p.dst_nb3 = p.src_nb2 * tokens + gap;
  p.positions_offset = 3;
  p.positions_stride = tokens;
  p.frequencies_offset = 8;
  p.factors_offset = 2;
  p.scale = 1.0f;
  r.source.assign((p.src_offset + std::size_t{p.src_nb3} * batches + 3) / 4 * 4, std::byte{0xA5});
  r.destination.assign(r.source.size(), std::byte{0x5A});
  return r;
}

void run(PageKernelDevice& device, Rope& r) {
  std::vector<std::uint32_t> positions(r.push.positions_offset, 1u << 30), frequencies(r.push.frequencies_offset, 5);
  positions.insert(positions.end(), r.positions.begin(), r.positions.end());
  for (std::size_t i = 0; i < r.turns.size(); ++i) {
    const params::RopeFrequency f = params::rope_frequency(r.turns[i], r.streams.empty() ? 0 : r.streams[i]);
    frequencies.insert(frequencies.end(), {f.low, f.high, f.whole, f.stream});
  }
  std::vector<float> factors(r.push.factors_offset, 7.0f);
  factors.insert(factors.end(), r.factors.begin(), r.factors.end());
  Bytes position_bytes = bytes_of(positions), frequency_bytes = bytes_of(frequencies), factor_bytes = bytes_of(factors);
  SpecValues spec{};
  spec[KVANT_SPEC_LOCAL_SIZE] = 64;
  spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(r.type);
  spec[KVANT_SPEC_ROPE_UNIT] = r.unit;
  spec[KVANT_SPEC_ROPE_FACTORS] = r.factors.empty() ? 0 : 1;
  const params::RopeParams& p = r.push;
  const params::Grid grid = params::rope_grid(params::rope_units(p.pairs, r.unit, p.rest, p.tokens, p.batches), p.rows, 64, r.limit, r.limit);
  // In place a device binds one buffer twice, which this device of tests cannot: DESTINATION begins as SOURCE, and only that counts.
  if (r.in_place) r.destination = r.source;
  Bytes expected = r.destination;
  run_reference(reference::run_rope, spec, p, {&r.source, &expected, &position_bytes, &frequency_bytes, &factor_bytes}, grid);
  const Bytes before = r.source;
  const Status status = device.run(KernelId::rope, spec, &p, sizeof p,
                                   {&r.source, &r.destination, &position_bytes, &frequency_bytes, &factor_bytes}, grid);
  REQUIRE_MESSAGE(status.ok(), status.message());
  CHECK(r.source == before);
  // The reference turned the same elements: where they differ it is by an error of rounding, and nothing else was written.
  const std::uint32_t io = r.type == FormatId::f32 ? KVANT_IO_F32 : r.type == FormatId::f16 ? KVANT_IO_F16 : KVANT_IO_BF16;
  const float narrow = io == KVANT_IO_F32 ? 0x1p-20f : io == KVANT_IO_F16 ? 0x1p-9f : 0x1p-6f;
  CHECK(r.destination.size() % r.size() == 0);
  for (std::size_t at = 0; at < r.destination.size(); at += 2) {
    if (std::equal(expected.begin() + static_cast<std::ptrdiff_t>(at), expected.begin() + static_cast<std::ptrdiff_t>(at + 2),
                   r.destination.begin() + static_cast<std::ptrdiff_t>(at)))
      continue;
    // Elements begin behind gaps: found from where the row begins.
    const std::size_t in_batch = (at - p.src_offset) % p.src_nb3 % p.src_nb2 % p.src_nb1;
    REQUIRE(in_batch < r.dim * r.size());
    const std::size_t first = at - in_batch % r.size();
    const auto element = [&](const Bytes& bytes) {
      const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(first);
      return load_io(io, Bytes(begin, begin + static_cast<std::ptrdiff_t>(r.size())), 0);
    };
    const float x = element(expected), y = element(r.destination);
    CHECK(std::fabs(x - y) <= narrow * std::max(1.0f, std::fabs(x)) * 4);
  }
}

double remainder_of(double turns, std::uint32_t position) {
  const long double turned = static_cast<long double>(turns) * static_cast<long double>(static_cast<std::int32_t>(position));
  return static_cast<double>(std::remainder(turned, 1.0L)) * 2.0 * std::numbers::pi;
}

}  // namespace

TEST_SUITE_BEGIN("page kernels device");

TEST_CASE("page kernels: rope's cosine and sine hold at any position, with and without factors") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(61);
  constexpr std::uint32_t kPairs = 64, kTokens = 96;
  for (const bool divided : {false, true}) {
    Rope r = make_rope(FormatId::f32, 2 * kPairs, 1, kTokens, 1, 0);
    r.push.pairs = kPairs;
    r.push.distance = kPairs;
    r.limit = divided ? 2 : 65535;
    for (std::uint32_t pair = 0; pair < kPairs; ++pair) {
      const double frequency = pair % 9 == 8 ? 30.5 + pair : std::pow(500000.0, -static_cast<double>(pair) / kPairs);
      r.turns.push_back(frequency / (2.0 * std::numbers::pi));
      const float sizes[] = {1.0f, 0.37f, 64.0f, 3e-5f, -1.7f, 4096.0f, 1e9f, 0.5f, 3e20f};
      if (divided) r.factors.push_back(sizes[pair % 9] * (1.0f + 0.001f * static_cast<float>(pair)));
    }
    for (std::uint32_t token = 0; token < kTokens; ++token) {
      const std::uint32_t drawn = static_cast<std::uint32_t>(engine()) % (token < 48 ? 1000000 : 4096), position = token < 8 ? token : drawn;
      r.positions.push_back(token % 7 == 6 ? 0 - position : position);
    }
    for (std::uint32_t token = 0; token < kTokens; ++token)
      for (std::uint32_t pair = 0; pair < kPairs; ++pair) {
        const float x[2] = {1.0f, 0.0f};
        std::memcpy(r.source.data() + r.place(pair, 0, token, 0), &x[0], 4);
        std::memcpy(r.source.data() + r.place(pair + kPairs, 0, token, 0), &x[1], 4);
      }
    run(*device, r);
    double worst = 0.0;
    for (std::uint32_t token = 0; token < kTokens; ++token)
      for (std::uint32_t pair = 0; pair < kPairs; ++pair) {
        float cosine = 0, sine = 0;
        std::memcpy(&cosine, r.destination.data() + r.place(pair, 0, token, 0), 4);
        std::memcpy(&sine, r.destination.data() + r.place(pair + kPairs, 0, token, 0), 4);
        const double divisor = divided ? static_cast<double>(r.factors[pair]) : 1.0;
        if (std::fabs(divisor) < 0.01) continue;  // a double has no more turns of these to tell
        const double angle = remainder_of(r.turns[pair] / divisor, r.positions[token]);
        worst = std::max({worst, std::fabs(static_cast<double>(cosine) - std::cos(angle)), std::fabs(static_cast<double>(sine) - std::sin(angle))});
      }
    CHECK(worst <= 0x1p-22);
  }
}

TEST_CASE("page kernels: rope turns rows of every type, in any place") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(62);
  std::uint32_t round = 0;
  for (const FormatId type : {FormatId::f32, FormatId::f16, FormatId::bf16})
    for (const std::uint32_t dim : {64u, 36u, 80u, 7u}) {
      const std::uint32_t io = type == FormatId::f32 ? KVANT_IO_F32 : type == FormatId::f16 ? KVANT_IO_F16 : KVANT_IO_BF16;
      const double narrow = io == KVANT_IO_F32 ? 0x1p-22 : io == KVANT_IO_F16 ? 0x1p-11 : 0x1p-8;
      for (std::uint32_t kind = 0; kind < 8; ++kind, ++round) {
        const bool halves = kind % 2 == 1, part = kind / 2 % 2 == 1;
        Rope r = make_rope(type, dim, 1 + round % 4, 5, 1 + round / 2 % 2, round % 3 == 0 ? 2 : 0);
        params::RopeParams& p = r.push;
        r.in_place = kind / 4 == 1;
        p.pairs = part ? dim / 4 : dim / 2;
        p.first = part ? dim / 4 + round % 2 : 0;
        p.distance = halves ? p.pairs : 1;
        p.rest = r.in_place ? 0 : dim - 2 * p.pairs;
        p.scale = 0.75f;
        r.unit = type != FormatId::f32 && p.distance != 1 && p.pairs % 2 == 0 ? 2 : 1;
        for (std::uint32_t pair = 0; pair < p.pairs; ++pair) {
          r.turns.push_back(0.159 * std::pow(0.8, pair));
          r.streams.push_back(halves ? pair % 3 : 0);
        }
        for (std::uint32_t i = 0; i < 3 * p.tokens; ++i) r.positions.push_back(static_cast<std::uint32_t>(engine()) % 3000);
        // Values are stored through a row of their own: gaps put rows at half words.
        std::vector<float> x;
        Bytes one(4);
        const auto each = [&](auto&& take) {
          for (std::uint32_t batch = 0; batch < p.batches; ++batch)
            for (std::uint32_t token = 0; token < p.tokens; ++token)
              for (std::uint32_t row = 0; row < p.rows; ++row)
                for (std::uint32_t i = 0; i < dim; ++i) take(i, token, r.place(i, row, token, batch));
        };
        each([&](std::uint32_t, std::uint32_t, std::size_t at) {
          x.push_back(as_io(io, normal(engine)));
          store_io(io, one, 0, x.back());
          std::copy_n(one.begin(), r.size(), r.source.begin() + static_cast<std::ptrdiff_t>(at));
        });
        CAPTURE(format_info(type).name);
        CAPTURE(dim);
        CAPTURE(kind);
        run(*device, r);
        std::size_t n = 0;
        each([&](std::uint32_t i, std::uint32_t token, std::size_t at) {
          std::copy_n(r.destination.begin() + static_cast<std::ptrdiff_t>(at), r.size(), one.begin());
          const double actual = static_cast<double>(load_io(io, one, 0));
          const float* row = x.data() + n - i;
          double expected = static_cast<double>(row[i]), size = 0.0;
          if (i >= p.first && i < p.first + 2 * p.pairs) {
            const std::uint32_t j = i - p.first, pair = p.distance == 1 ? j / 2 : j % p.pairs;
            const bool second = p.distance == 1 ? j % 2 == 1 : j >= p.pairs;
            const double angle = remainder_of(r.turns[pair], r.positions[r.streams[pair] * p.tokens + token]);
            const double partner = static_cast<double>(second ? row[i - p.distance] : row[i + p.distance]);
            size = std::fabs(expected) + std::fabs(partner);
            expected = 0.75 * (expected * std::cos(angle) + (second ? partner : -partner) * std::sin(angle));
          }
          CHECK(std::fabs(actual - expected) <= 0x1p-21 * size + (size > 0.0 ? narrow * std::fabs(expected) + 0x1p-24 : 0.0));
          ++n;
        });
      }
    }
}

TEST_CASE("page kernels: hadamard is the matrix of Sylvester, and its own inverse") {
  KVANT_DEVICE_OR_SKIP(device);
  std::mt19937 engine(63);
  for (std::uint32_t bits = 0; bits <= 9; ++bits)
    for (const FormatId type : {FormatId::f32, FormatId::f16}) {
      const std::uint32_t n = 1u << bits, planes = 3, rows = bits % 2 == 0 ? 23 : 5;
      const std::uint32_t size = format_info(type).canonical_bytes, io = type == FormatId::f16 ? KVANT_IO_F16 : KVANT_IO_F32;
      const std::uint32_t gap = bits % 3 == 0 ? 4 : 0;
      params::HadamardParams push{.rows = rows * planes, .ne1 = rows, .ne2 = planes,
                                  .src_offset = gap, .src_nb1 = n * size + gap, .src_nb2 = 0, .src_nb3 = 0,
                                  .dst_offset = gap, .dst_nb1 = n * 4 + gap, .dst_nb2 = 0, .dst_nb3 = 0,
                                  .scale = 1.0f / std::sqrt(static_cast<float>(n))};
      push.src_nb2 = push.src_nb1 * rows + gap;
      push.dst_nb2 = push.dst_nb1 * rows + gap;
      Bytes source((gap + push.src_nb2 * planes + 3) / 4 * 4, std::byte{0xFF}), result(gap + push.dst_nb2 * planes, std::byte{0x5A});
      std::vector<double> x;
      for (std::uint32_t row = 0; row < rows * planes; ++row)
        for (std::uint32_t i = 0; i < n; ++i) {
          const float value = as_io(io, normal(engine));
          x.push_back(static_cast<double>(value));
          store_io(io, source, (gap + row / rows * push.src_nb2 + row % rows * push.src_nb1) / size + i, value);
        }
      SpecValues spec{};
      spec[KVANT_SPEC_LOCAL_SIZE] = 64;
      spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(type);
      spec[KVANT_SPEC_HEAD_DIM_K] = n;
      const params::Grid grid = params::hadamard_grid(std::uint64_t{push.rows} * n, 64);
      Bytes expected = result;
      run_reference(reference::run_hadamard, spec, push, {&source, &expected}, grid);
      Status status = device->run(KernelId::hadamard, spec, &push, sizeof push, {&source, &result}, grid);
      REQUIRE_MESSAGE(status.ok(), status.message());
      CAPTURE(n);
      CAPTURE(format_info(type).name);
      for (std::uint32_t row = 0; row < push.rows; ++row)
        for (std::uint32_t i = 0; i < n; ++i) {
          double sum = 0.0, most = 0.0;
          for (std::uint32_t j = 0; j < n; ++j) {
            sum += std::popcount(i & j) % 2 == 0 ? x[row * n + j] : -x[row * n + j];
            most += std::fabs(x[row * n + j]);
          }
          float* const in = reinterpret_cast<float*>(result.data()) + (gap + row / rows * push.dst_nb2 + row % rows * push.dst_nb1) / 4 + i;
          float reference = 0;
          std::memcpy(&reference, expected.data() + (reinterpret_cast<std::byte*>(in) - result.data()), 4);
          const double scale = static_cast<double>(push.scale), bound = (bits + 2) * 0x1p-24 * most * scale;
          CHECK(std::fabs(static_cast<double>(*in) - sum * scale) <= bound);
          CHECK(std::fabs(static_cast<double>(reference) - sum * scale) <= bound);
          std::memcpy(expected.data() + (reinterpret_cast<std::byte*>(in) - result.data()), in, 4);
        }
      CHECK(result == expected);  // beyond the elements too
      // Once more: the rows as they were.
      params::HadamardParams back = push;
      back.src_offset = push.dst_offset;
      back.src_nb1 = push.dst_nb1;
      back.src_nb2 = push.dst_nb2;
      spec[KVANT_SPEC_FORMAT_K] = static_cast<std::uint32_t>(FormatId::f32);
      Bytes again(result.size());
      status = device->run(KernelId::hadamard, spec, &back, sizeof back, {&result, &again}, grid);
      REQUIRE_MESSAGE(status.ok(), status.message());
      for (std::uint32_t row = 0; row < push.rows; ++row)
        for (std::uint32_t i = 0; i < n; ++i) {
          const float y = load_io(KVANT_IO_F32, again, (gap + row / rows * push.dst_nb2 + row % rows * push.dst_nb1) / 4 + i);
          CHECK(static_cast<double>(y) == doctest::Approx(x[row * n + i]).epsilon(1e-5).scale(10));
        }
    }
}

TEST_SUITE_END();
