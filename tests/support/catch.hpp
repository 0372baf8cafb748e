#pragma once

// Catch2 v3 where it is installed, otherwise v2 (Debian 12 has 2.13).
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
