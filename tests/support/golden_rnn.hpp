#pragma once

#include <array>
#include <cmath>
#include <vector>

#include "unroll/core/block.hpp"
#include "unroll/system/concepts.hpp"

// A tanh network small enough to enumerate every random outcome of an estimator, with constants computed
// once in double precision by independent code.
namespace golden {

using unroll::index_t;

/// h' = tanh(W [h; x; 1]), loss = 1/2 ||h' - y||^2; theta is W (2 x 4) row by row.
template <class T = double>
struct rnn {
  using scalar = T;
  struct input {
    T x = 0;
    std::array<T, 2> y{};
  };

  unroll::dims size() const { return {.params = 8, .state = 2, .tape = 2, .workspace = 2, .lanes = 1}; }
  void start(unroll::state<T> s) const {
    s[0] = T(0.3);
    s[1] = T(0.3);
  }
  bool finite(const input& in) const { return std::isfinite(in.x + in.y[0] + in.y[1]); }

  void step(const input& in, const unroll::edge<T>& e) const {
    T loss = 0;
    for (index_t i = 0; i < 2; ++i) {
      const T* w = e.theta.data() + 4 * i;
      e.next[i] = std::tanh(w[0] * e.s[0] + w[1] * e.s[1] + w[2] * in.x + w[3]);
      e.tape[i] = 1 - e.next[i] * e.next[i];  // tanh'
      const T r = e.next[i] - in.y[std::size_t(i)];
      loss += r * r / 2;
    }
    *e.loss = loss;
  }

  void vjp(const input& in, const unroll::const_edge<T>& e, unroll::dstate<const T> dnext, T dloss,
           unroll::dstate<T> ds, unroll::dparams<T> dtheta) const {
    for (index_t i = 0; i < 2; ++i) {
      T d = dloss * (e.next[i] - in.y[std::size_t(i)]);
      if (!dnext.empty()) d += dnext[i];
      d *= e.tape[i];
      const T* w = e.theta.data() + 4 * i;
      if (!ds.empty())
        for (index_t j = 0; j < 2; ++j) ds[j] += d * w[j];
      if (!dtheta.empty()) {
        const std::array<T, 4> a{e.s[0], e.s[1], in.x, T(1)};
        for (index_t j = 0; j < 4; ++j) dtheta[4 * i + j] += d * a[std::size_t(j)];
      }
    }
  }

  void jvp(const input& in, const unroll::const_edge<T>& e, unroll::params_tangent<const T> dtheta,
           unroll::state_tangent<const T> ds, unroll::state_tangent<T> dnext, T* dloss) const {
    T dl = 0;
    std::array<T, 2> d{};
    for (index_t i = 0; i < 2; ++i) {
      const T* w = e.theta.data() + 4 * i;
      T da = 0;
      if (!ds.empty()) da += w[0] * ds[0] + w[1] * ds[1];
      if (!dtheta.empty()) {
        const T* dw = dtheta.data() + 4 * i;
        da += dw[0] * e.s[0] + dw[1] * e.s[1] + dw[2] * in.x + dw[3];
      }
      d[std::size_t(i)] = e.tape[i] * da;
      dl += (e.next[i] - in.y[std::size_t(i)]) * d[std::size_t(i)];
    }
    for (index_t i = 0; i < 2; ++i) dnext[i] = d[std::size_t(i)];  // ds may be dnext
    if (dloss) *dloss = dl;
  }
};

static_assert(unroll::has_vjp<rnn<double>> && unroll::has_jvp<rnn<float>>);

template <class T = double>
unroll::parameters<T> theta() {
  unroll::parameters<T> p(8);
  const std::array<double, 8> w{.5, -.3, .8, .1, .2, .4, -.6, -.2};
  for (index_t i = 0; i < 8; ++i) p[i] = T(w[std::size_t(i)]);
  return p;
}

/// The three inputs of the golden sequence.
template <class T = double>
std::vector<typename rnn<T>::input> inputs() {
  return {{T(1), {T(.5), T(-.5)}}, {T(-.5), {T(0), T(.2)}}, {T(.25), {T(-.3), T(.1)}}};
}

/// A longer sequence for everything but the constants below.
template <class T = double>
std::vector<typename rnn<T>::input> long_inputs(index_t n) {
  std::vector<typename rnn<T>::input> xs(static_cast<std::size_t>(n));
  for (index_t t = 0; t < n; ++t) {
    const double u = double(t + 1);
    xs[std::size_t(t)] = {T(std::sin(1.7 * u)), {T(.5 * std::cos(.9 * u)), T(.4 * std::sin(2.3 * u + 1))}};
  }
  return xs;
}

using vec8 = std::array<double, 8>;

inline constexpr std::array<std::array<double, 2>, 3> states{{{0.744276867361837, -0.551128028538147},
                                                              {0.233111109814058, 0.028396525729376},
                                                              {0.386804306159340, -0.283992193923950}}};
inline constexpr double loss = 0.3826119825421701;
inline constexpr double gradient_squared_norm = 3.205548445258558;
inline constexpr vec8 gradient{.504456854494085,  -.171910137565843, .092418018321499,  1.175198109738757,
                               -.523583596627774, .180367317017956,  -.105626612938663, -1.101842915983824};
/// Only terms whose loss lies less than `lag` steps behind the use of theta.
inline constexpr vec8 lag_below_1{.3329068586,  -.0722197465, .1447499162,  .9134501537,
                                  -.2205904905, .0737951183,  -.0381213993, -.5600860153};
inline constexpr vec8 lag_below_2{.4989088970,  -.1774580950, .0739248268, 1.1567049182,
                                  -.4840466434, .2199042703,  .0261632312, -.9700530718};
inline constexpr vec8 snap_1{.571668460795,  -.191189890645, .117426986494,  1.300358806132,
                             -.351719079195, .125441920602,  -.054622833682, -.788230224371};
/// dL along the direction of eight ones.
inline constexpr double jvp_ones = 0.04947703645619411;

// Single draws with rho without epsilon, all losses accumulated.
/// Signs (1,1), (1,-1), (-1,1).
inline constexpr vec8 uoro_draw{.223319493922877,  -.028926965830277, .147083735162066, .593696746823087,
                                -.123559279859850, .144477287807473,  .223152865810438, -.254276264837463};
inline constexpr vec8 nobacktrack_draw{.209881949259978, -.019752077716005, .153505706582116,
                                       .581459420573422, -.122198446857392, .114611957163405,
                                       .155989439681515, -.286717181575520};
/// First sign fixed +, second signs (+,+,-).
inline constexpr vec8 kf_rtrl_draw{.210010130044494,  -.015575517762207, .168839124416995, .540860746718583,
                                   -.503781239603150, .263739873129272,  .059361421624459, -.576835157496002};
/// Cut probability 1/2 everywhere; cuts nowhere, after step 1, after step 2. Both cuts give lag_below_1.
inline constexpr vec8 artbp_uncut{.687102765288342,  -.260504613710804, .077072503587330,
                                  1.473932448876192, -.905650609234706, .207865609264580,
                                  -.436711514901497, -1.907179504986575};
inline constexpr vec8 artbp_cut_1{.644590018294364,  -.303017360704782, -.064636653059263,
                                  1.332223292229599, -.691223237141928, .422292981357359,
                                  .278046392074430,  -1.192421598010647};
inline constexpr vec8 artbp_cut_2{.353227775753965,  -.051898829366745, .212486306569457,  .981186544115112,
                                  -.276870049620714, .017515559171459,  -.225719929642070, -.747684545647315};

/// Trace of the covariance of the estimate of one sequence, by enumeration.
inline constexpr double trace_uoro = 5.505887099108;
inline constexpr double trace_uoro_unbalanced = 7.287727747323;
inline constexpr double trace_nobacktrack = 5.551285861405;
inline constexpr double trace_kf_rtrl = 2.456696174421;
inline constexpr double trace_ok_1 = 0.512998013774;
inline constexpr double trace_ok_2 = 0.001718096170;
inline constexpr double trace_dodge_signs = 22.438839116810;  // 7 |g|^2
inline constexpr double trace_artbp_03 = 0.225423153148;
inline constexpr double trace_artbp_05 = 0.548049656387;

/// ||a - b|| / ||b||.
template <class A, class B>
double relative_error(const A& a, const B& b) {
  double top = 0, bottom = 0;
  auto i = b.begin();
  for (const auto& x : a) {
    top += (double(x) - double(*i)) * (double(x) - double(*i));
    bottom += double(*i) * double(*i);
    ++i;
  }
  return std::sqrt(top / bottom);
}

/// a'b / (||a|| ||b||).
template <class A, class B>
double cosine(const A& a, const B& b) {
  double product = 0, left = 0, right = 0;
  auto i = b.begin();
  for (const auto& x : a) {
    product += double(x) * double(*i);
    left += double(x) * double(x);
    right += double(*i) * double(*i);
    ++i;
  }
  return product / std::sqrt(left * right);
}

}  // namespace golden
