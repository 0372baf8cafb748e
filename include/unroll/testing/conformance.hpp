#pragma once

#include "unroll/testing/estimator_conformance.hpp"
#include "unroll/testing/system_conformance.hpp"
